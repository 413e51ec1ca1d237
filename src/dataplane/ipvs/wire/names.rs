//! The one table of numbers: every command, attribute and flag by its name in `linux/ip_vs.h`.
//!
//! Owns the numbers and nothing else. The names stand in error messages too.

use crate::model::SchedulerFlags;

/// An attribute: its number on the wire and its name for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) id: u16,
    pub(super) name: &'static str,
}

macro_rules! attributes {
    ($($name:ident = $id:literal),* $(,)?) => {
        $(pub(super) const $name: Attribute = Attribute { id: $id, name: stringify!($name) };)*
    };
}

/// The family's name and version in `CTRL_CMD_GETFAMILY` and in each message.
pub(super) const IPVS_GENL_NAME: &str = "IPVS";
pub(super) const IPVS_GENL_VERSION: u8 = 1;

// enum in linux/genetlink.h
pub(super) const CTRL_CMD_NEWFAMILY: u8 = 1;
pub(super) const CTRL_CMD_GETFAMILY: u8 = 3;
attributes! { CTRL_ATTR_FAMILY_ID = 1, CTRL_ATTR_FAMILY_NAME = 2 }

// Commands. A GET is answered with the NEW (or SET) command of the same thing.
pub(super) const IPVS_CMD_NEW_SERVICE: u8 = 1;
pub(super) const IPVS_CMD_SET_SERVICE: u8 = 2;
pub(super) const IPVS_CMD_DEL_SERVICE: u8 = 3;
pub(super) const IPVS_CMD_GET_SERVICE: u8 = 4;
pub(super) const IPVS_CMD_NEW_DEST: u8 = 5;
pub(super) const IPVS_CMD_SET_DEST: u8 = 6;
pub(super) const IPVS_CMD_DEL_DEST: u8 = 7;
pub(super) const IPVS_CMD_GET_DEST: u8 = 8;
pub(super) const IPVS_CMD_SET_CONFIG: u8 = 12;
pub(super) const IPVS_CMD_GET_CONFIG: u8 = 13;
pub(super) const IPVS_CMD_SET_INFO: u8 = 14;
pub(super) const IPVS_CMD_GET_INFO: u8 = 15;

// Top level.
attributes! {
    IPVS_CMD_ATTR_SERVICE = 1,
    IPVS_CMD_ATTR_DEST = 2,
    IPVS_CMD_ATTR_TIMEOUT_TCP = 4,
    IPVS_CMD_ATTR_TIMEOUT_TCP_FIN = 5,
    IPVS_CMD_ATTR_TIMEOUT_UDP = 6,
}

// Top level of the answer to GET_INFO.
attributes! { IPVS_INFO_ATTR_VERSION = 1, IPVS_INFO_ATTR_CONN_TAB_SIZE = 2 }

attributes! {
    IPVS_SVC_ATTR_AF = 1,
    IPVS_SVC_ATTR_PROTOCOL = 2,
    IPVS_SVC_ATTR_ADDR = 3,
    IPVS_SVC_ATTR_PORT = 4,
    IPVS_SVC_ATTR_FWMARK = 5,
    IPVS_SVC_ATTR_SCHED_NAME = 6,
    IPVS_SVC_ATTR_FLAGS = 7,
    IPVS_SVC_ATTR_TIMEOUT = 8,
    IPVS_SVC_ATTR_NETMASK = 9,
    IPVS_SVC_ATTR_STATS = 10,
    IPVS_SVC_ATTR_PE_NAME = 11,
    IPVS_SVC_ATTR_STATS64 = 12,
}

attributes! {
    IPVS_DEST_ATTR_ADDR = 1,
    IPVS_DEST_ATTR_PORT = 2,
    IPVS_DEST_ATTR_FWD_METHOD = 3,
    IPVS_DEST_ATTR_WEIGHT = 4,
    IPVS_DEST_ATTR_U_THRESH = 5,
    IPVS_DEST_ATTR_L_THRESH = 6,
    IPVS_DEST_ATTR_ACTIVE_CONNS = 7,
    IPVS_DEST_ATTR_INACT_CONNS = 8,
    IPVS_DEST_ATTR_PERSIST_CONNS = 9,
    IPVS_DEST_ATTR_STATS = 10,
    IPVS_DEST_ATTR_ADDR_FAMILY = 11,
    IPVS_DEST_ATTR_STATS64 = 12,
    IPVS_DEST_ATTR_TUN_TYPE = 13,
    IPVS_DEST_ATTR_TUN_PORT = 14,
    IPVS_DEST_ATTR_TUN_FLAGS = 15,
}

// Inside STATS and STATS64.
attributes! {
    IPVS_STATS_ATTR_CONNS = 1,
    IPVS_STATS_ATTR_INPKTS = 2,
    IPVS_STATS_ATTR_OUTPKTS = 3,
    IPVS_STATS_ATTR_INBYTES = 4,
    IPVS_STATS_ATTR_OUTBYTES = 5,
    IPVS_STATS_ATTR_CPS = 6,
    IPVS_STATS_ATTR_INPPS = 7,
    IPVS_STATS_ATTR_OUTPPS = 8,
    IPVS_STATS_ATTR_INBPS = 9,
    IPVS_STATS_ATTR_OUTBPS = 10,
}

// IPVS_SVC_ATTR_FLAGS. IP_VS_SVC_F_HASHED (2) is the kernel's own and means nothing to us.
pub(super) const IP_VS_SVC_F_PERSISTENT: u32 = 0x1;
pub(super) const IP_VS_SVC_F_ONEPACKET: u32 = 0x4;
/// `IP_VS_SVC_F_SCHED1` to `3` and our words for what they mean to a scheduler.
pub(super) const IP_VS_SVC_F_SCHED: [(u32, SchedulerFlags); 3] =
    [(0x8, SchedulerFlags::FALLBACK), (0x10, SchedulerFlags::PORT), (0x20, SchedulerFlags::THIRD)];

/// Longest name of a scheduler (`IP_VS_SCHEDNAME_MAXLEN`) or engine (`IP_VS_PENAME_MAXLEN`), NUL included.
pub(super) const IP_VS_NAME_MAXLEN: usize = 16;

// IPVS_DEST_ATTR_FWD_METHOD
pub(super) const IP_VS_CONN_F_FWD_MASK: u32 = 0x7;
pub(super) const IP_VS_CONN_F_MASQ: u32 = 0;
pub(super) const IP_VS_CONN_F_LOCALNODE: u32 = 1;
pub(super) const IP_VS_CONN_F_TUNNEL: u32 = 2;
pub(super) const IP_VS_CONN_F_DROUTE: u32 = 3;
pub(super) const IP_VS_CONN_F_BYPASS: u32 = 4;

// IPVS_DEST_ATTR_TUN_TYPE
pub(super) const IP_VS_CONN_F_TUNNEL_TYPE_IPIP: u8 = 0;
pub(super) const IP_VS_CONN_F_TUNNEL_TYPE_GUE: u8 = 1;
pub(super) const IP_VS_CONN_F_TUNNEL_TYPE_GRE: u8 = 2;

// IPVS_DEST_ATTR_TUN_FLAGS
pub(super) const IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM: u16 = 0;
pub(super) const IP_VS_TUNNEL_ENCAP_FLAG_CSUM: u16 = 1;
pub(super) const IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM: u16 = 2;
