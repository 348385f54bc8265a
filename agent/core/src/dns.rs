//! Names to addresses: what `/etc/hosts` and `/etc/resolv.conf` say, what to ask the DNS and what its answer means (RFC 1035).
//!
//! The C library is not asked: linked statically, it loads the modules that nsswitch.conf names from the host, and with another
//! version of itself that ends the process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, header_buffer, rdata::RData};

/// Name servers that are asked, as in resolv.conf(5).
const MAX_SERVERS: usize = 3;
/// Search domains that are tried.
const MAX_SEARCH: usize = 6;
/// Addresses that are taken from one answer.
const MAX_ADDRESSES: usize = 16;

/// How names are looked up, see resolv.conf(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolv {
    /// Whom to ask, in this order.
    pub servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// A name server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAnswer {
    /// The addresses, none if the name has none of this kind.
    Addresses(Vec<IpAddr>),
    /// The name does not exist.
    NoName,
    /// It is too long for a datagram: ask by TCP.
    Truncated,
    /// The server cannot or does not want to.
    Failed(RCODE),
}

/// The addresses that a hosts(5) file has for a name; those of the loopback for `localhost` (RFC 6761, 6.3).
pub fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .take(MAX_ADDRESSES)
        .collect();
    if found.is_empty() && name.eq_ignore_ascii_case("localhost") {
        found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    found
}

impl Resolv {
    /// Reads resolv.conf; what is not understood is left out. Without a server it is the one on this machine.
    pub fn parse(text: &str) -> Self {
        let mut resolv = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // an address with a zone cannot be asked from here
                Some("nameserver") => resolv.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => {
                    resolv.search = words.take(MAX_SEARCH).map(|word| word.trim_matches('.').to_owned()).collect();
                    resolv.search.retain(|domain| !domain.is_empty());
                }
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok()).next_back();
                    resolv.ndots = ndots.unwrap_or(resolv.ndots).min(15);
                }
                _ => {}
            }
        }
        resolv.servers.truncate(MAX_SERVERS);
        if resolv.servers.is_empty() {
            resolv.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        resolv
    }

    /// The full names to ask for, in order: a name with few dots is completed first.
    pub fn names(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let completed = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let as_it_is = [name.to_owned()].into_iter();
        if name.matches('.').count() >= self.ndots {
            as_it_is.chain(completed).collect()
        } else {
            completed.chain(as_it_is).collect()
        }
    }
}

/// The message that asks for a name; None if it cannot be a name of the DNS.
pub fn question(id: u16, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    if name.split('.').any(str::is_empty) || name.contains('\\') {
        return None;
    }
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).ok()?, kind.code().into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// Reads a message as the answer to a question; None if it answers another question or none.
pub fn answer(question: &[u8], message: &[u8]) -> Option<DnsAnswer> {
    let question = Packet::parse(question).ok()?;
    let asked = question.questions.first()?;
    if header_buffer::id(message).ok()? != question.id()
        || !header_buffer::has_flags(message, PacketFlag::RESPONSE).ok()?
    {
        return None;
    }
    // first, since the rest of such a message may be cut off anywhere
    if header_buffer::has_flags(message, PacketFlag::TRUNCATION).ok()? {
        return Some(DnsAnswer::Truncated);
    }
    let packet = Packet::parse(message).ok()?;
    match packet.questions.as_slice() {
        [again] if again.qname == asked.qname && again.qtype == asked.qtype && again.qclass == asked.qclass => {}
        _ => return None,
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Some(DnsAnswer::NoName),
        code => return Some(DnsAnswer::Failed(code)),
    }
    // the chain of aliases before the addresses is the server's work
    let addresses = packet.answers.iter().filter(|record| record.match_qtype(asked.qtype) && record.class == CLASS::IN);
    let addresses = addresses.filter_map(|record| match &record.rdata {
        RData::A(four) => Some(IpAddr::from(Ipv4Addr::from(four.address))),
        RData::AAAA(six) => Some(IpAddr::from(Ipv6Addr::from(six.address))),
        _ => None,
    });
    Some(DnsAnswer::Addresses(addresses.take(MAX_ADDRESSES).collect()))
}

impl RecordType {
    fn code(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn hosts_come_first() {
        let text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n# 1.1.1.1 registry.corp\n10.0.0.5\tregistry.corp reg # x\nbad name\n10.0.0.6 REG\n";
        assert_eq!(in_hosts(text, "registry.corp"), ips(&["10.0.0.5"]));
        assert_eq!(in_hosts(text, "Reg."), ips(&["10.0.0.5", "10.0.0.6"]));
        assert_eq!(in_hosts(text, "localhost"), ips(&["127.0.0.1", "::1"]));
        assert_eq!(in_hosts("", "localhost"), ips(&["127.0.0.1", "::1"]));
        assert_eq!(in_hosts(text, "x"), ips(&[]));
    }

    #[test]
    fn resolv_conf_as_kubelet_writes_it() {
        let text = "search a.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5 timeout:1\n";
        let resolv = Resolv::parse(text);
        assert_eq!(resolv.servers, ips(&["10.96.0.10"]));
        let names = ["registry.corp.a.svc.cluster.local", "registry.corp.svc.cluster.local", "registry.corp"];
        assert_eq!(resolv.names("registry.corp"), names);
        assert_eq!(resolv.names("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(resolv.names("registry.corp."), ["registry.corp"]);
        let host = Resolv::parse(
            "# x\ndomain corp\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver ::1\nsortlist x",
        );
        assert_eq!(
            (host.servers.clone(), host.names("reg")),
            (ips(&["127.0.0.53", "::1"]), vec!["reg.corp".into(), "reg".into()])
        );
        assert_eq!(Resolv::parse("").servers, ips(&["127.0.0.1"]));
    }

    #[test]
    fn answers_are_read_and_nothing_else_is() {
        let asked = question(7, "registry.corp", RecordType::A).unwrap();
        assert_eq!(&asked[12..], b"\x08registry\x04corp\x00\x00\x01\x00\x01");
        let reply = |flags: [u8; 2], count: u8, records: &[u8]| {
            let mut out = vec![0, 7, 0x80 | flags[0], flags[1], 0, 1, 0, count, 0, 0, 0, 0];
            out.extend_from_slice(&asked[12..].to_ascii_uppercase());
            out.extend_from_slice(records);
            out
        };
        // an alias, then an address
        let records = b"\xc0\x0c\x00\x05\x00\x01\0\0\0\x3c\x00\x04\x01a\xc0\x15\x01a\x00\x00\x01\x00\x01\0\0\0\x3c\x00\x04\x0a\0\0\x05";
        let good = reply([1, 0x80], 2, records);
        assert_eq!(answer(&asked, &good), Some(DnsAnswer::Addresses(ips(&["10.0.0.5"]))));
        assert_eq!(answer(&asked, &reply([1, 0x80], 0, &[])), Some(DnsAnswer::Addresses(Vec::new())));
        assert_eq!(answer(&asked, &reply([1, 0x83], 0, &[])), Some(DnsAnswer::NoName));
        assert_eq!(answer(&asked, &reply([1, 0x82], 0, &[])), Some(DnsAnswer::Failed(RCODE::ServerFailure)));
        assert_eq!(answer(&asked, &reply([3, 0x80], 2, records)), Some(DnsAnswer::Truncated));
        let cut = &reply([3, 0x80], 2, records)[..40];
        assert_eq!(answer(&asked, cut), Some(DnsAnswer::Truncated), "cut within a record");
        let of_another_name = question(7, "registry.other", RecordType::A).unwrap();
        assert_eq!(answer(&of_another_name, &good), None);
        let around = reply([1, 0x80], 1, b"\xc0\x1f\x00\x01\x00\x01\0\0\0\x3c\x00\x04\x0a\0\0\x05");
        assert_eq!(answer(&asked, &around), None, "a name that points at itself");
        let mut other = good.clone();
        other[1] = 8;
        assert_eq!(answer(&asked, &other), None, "another question's");
        assert_eq!(answer(&asked, &asked), None, "a question is no answer");
        for end in 0..good.len() {
            assert_eq!(answer(&asked, &good[..end]), None, "cut at {end}");
        }
        let six = question(7, "a", RecordType::Aaaa).unwrap();
        let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend_from_slice(&six[12..]);
        message.extend_from_slice(b"\xc0\x0c\x00\x1c\x00\x01\0\0\0\x3c\x00\x10");
        message.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
        assert_eq!(answer(&six, &message), Some(DnsAnswer::Addresses(ips(&["::1"]))));
        for bad in ["", "a..b", &"x".repeat(64), &["x".repeat(60).as_str(); 5].join(".")] {
            assert_eq!(question(1, bad, RecordType::A), None, "{bad}");
        }
    }
}
