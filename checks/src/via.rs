//! EDGE: a connection that leaves with a firewall mark.
//!
//! Owns the socket. Refuses to know what the mark stands for. Fails with the system's error: without CAP_NET_ADMIN that
//! is EPERM, and where this machine has no other address towards the server than the target's own, `AddrNotAvailable`;
//! neither says anything of the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::Via;

/// Any port: nothing is sent to it.
const DISCARD: u16 = 9;

pub(crate) async fn connect(via: Via, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_mark(via.mark)?;
    socket.bind(SocketAddr::new(own_address(via.server, target.ip())?, 0))?;
    socket.connect(target).await
}

/// The address that this machine has towards `server`.
fn own_address(server: IpAddr, target: IpAddr) -> io::Result<IpAddr> {
    let any = match server {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, DISCARD))?;
    let own = socket.local_addr()?.ip();
    if own == target || own.is_ipv4() != target.is_ipv4() {
        let text = format!("this machine has no address of its own towards {server}, other than {own}");
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_s_own_address_is_no_source() {
        let one: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(own_address(one, [192, 0, 2, 25].into()).unwrap(), one);
        for target in [one, Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(own_address(one, target).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        }
    }
}
