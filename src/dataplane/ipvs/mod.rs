//! IPVS in the kernel.
