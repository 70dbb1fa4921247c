//! Who may come: lists of address prefixes, as sorted ranges, so that a list of ten thousand costs a visitor no more than
//! one of ten. Pure.
//!
//! What it keeps: `deny` wins over `allow`; without `allow` everyone may come, with an empty one nobody. An IPv4 address
//! within IPv6 (`::ffff:192.0.2.1`) is that IPv4 address, in a list and as a visitor.

use std::net::{IpAddr, Ipv6Addr};

/// Addresses with the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The first of them.
    first: IpAddr,
    /// How many leading bits count.
    bits: u8,
}

impl Prefix {
    /// Reads `address/bits`, or an address alone; whether bits after the prefix were set, which do not count.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<(Prefix, bool), String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| no_address(address))?;
        let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) => number(digits).filter(|bits| *bits <= most).ok_or_else(|| {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                format!("after the slash of an {family} prefix stands a number from 0 to {most}")
            })?,
        };
        let first = masked(ip, bits);
        Ok((Prefix { first, bits }.canonical(), first != ip))
    }

    /// A prefix of mapped addresses is a prefix of IPv4 addresses.
    fn canonical(self) -> Prefix {
        match (self.first.to_canonical(), self.bits.checked_sub(96)) {
            (first @ IpAddr::V4(_), Some(bits)) if self.first.is_ipv6() => Prefix { first, bits },
            _ => self,
        }
    }

    /// The first and the last address, as numbers.
    fn range(self) -> (u128, u128) {
        let (first, most) = match self.first {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
            IpAddr::V6(ip) => (ip.to_bits(), 128),
        };
        (first, first | after(self.bits, most))
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// Who may come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// None: everyone.
    allow: Option<Ranges>,
    deny: Ranges,
}

impl Access {
    /// Those of `allow` (None: everyone), without those of `deny`.
    pub fn new(allow: Option<&[Prefix]>, deny: &[Prefix]) -> Self {
        Access { allow: allow.map(Ranges::new), deny: Ranges::new(deny) }
    }

    /// Whether a visitor with this address may come.
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        !self.deny.contain(ip) && self.allow.as_ref().is_none_or(|allow| allow.contain(ip))
    }
}

/// Addresses, as ranges in order that do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    fn new(prefixes: &[Prefix]) -> Self {
        let of = |v4: bool| {
            let same = prefixes.iter().filter(|prefix| prefix.first.is_ipv4() == v4);
            merged(same.map(|prefix| prefix.range()).collect())
        };
        Ranges { v4: of(true), v6: of(false) }
    }

    fn contain(&self, ip: IpAddr) -> bool {
        let (ranges, number) = match ip {
            IpAddr::V4(ip) => (&self.v4, u128::from(ip.to_bits())),
            IpAddr::V6(ip) => (&self.v6, ip.to_bits()),
        };
        let after = ranges.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| number <= *last)
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut apart: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    apart
}

/// The bits after a prefix, of addresses of `most` bits.
fn after(bits: u8, most: u8) -> u128 {
    match most.saturating_sub(bits) {
        128.. => u128::MAX,
        rest => (1 << rest) - 1,
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::try_from(after(bits, 32)).unwrap_or(u32::MAX);
            IpAddr::V4((v4.to_bits() & !mask).into())
        }
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !after(bits, 128))),
    }
}

/// Digits alone, at most three.
fn number(digits: &str) -> Option<u8> {
    let plain = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn no_address(text: &str) -> String {
    let help = if text.starts_with('[') {
        "write an IPv6 address without brackets and port"
    } else if text.contains('%') {
        "an interface cannot be part of it"
    } else {
        "write 192.0.2.0/24, 2001:db8::/32 or a single address; names are not resolved"
    };
    ["this is no IP address: ", help].concat()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).0
    }

    fn access(allow: Option<&[&str]>, deny: &[&str]) -> Access {
        let parse = |list: &[&str]| list.iter().map(|text| prefix(text)).collect::<Vec<_>>();
        Access::new(allow.map(parse).as_deref(), &parse(deny))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_are_read() {
        for (text, read, exact) in [
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.1.2.3/8", "10.0.0.0/8", false),
            ("192.0.2.1", "192.0.2.1/32", true),
            ("0.0.0.0/0", "0.0.0.0/0", true),
            ("192.0.2.1/0", "0.0.0.0/0", false),
            ("2001:db8::/32", "2001:db8::/32", true),
            ("2001:DB8::1", "2001:db8::1/128", true),
            ("::/0", "::/0", true),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", true),
            ("::ffff:192.0.2.1", "192.0.2.1/32", true),
            ("::ffff:0:0/96", "0.0.0.0/0", true),
            ("::ffff:0:0/95", "::fffe:0:0/95", false),
        ] {
            let (prefix, surplus) = Prefix::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((prefix.to_string().as_str(), surplus), (read, !exact), "{text}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_told_so() {
        for (text, expected) in [
            ("", "no IP address"),
            ("/8", "no IP address"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/-1", "0 to 32"),
            ("10.0.0.0/8/8", "0 to 32"),
            ("10.0.0.0/0000008", "0 to 32"),
            ("10.0.0.0/255.0.0.0", "0 to 32"),
            ("::/129", "0 to 128"),
            ("::/999", "0 to 128"),
            ("10.0.0", "no IP address"),
            (" 10.0.0.0/8", "no IP address"),
            ("10.0.0.1:80", "no IP address"),
            ("[::1]:80", "without brackets"),
            ("[::1]/128", "without brackets"),
            ("fe80::1%eth0", "interface"),
            ("example.com", "names are not resolved"),
            ("*", "no IP address"),
        ] {
            let error = Prefix::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn deny_wins_and_no_allow_means_everyone() {
        let everyone = access(None, &[]);
        assert_eq!(everyone, Access::default());
        assert!(everyone.admits(ip("192.0.2.1")) && everyone.admits(ip("::1")));
        let nobody = access(Some(&[]), &[]);
        assert!(!nobody.admits(ip("192.0.2.1")) && !nobody.admits(ip("::1")));
        let office = access(Some(&["10.0.0.0/8", "2001:db8::/32"]), &["10.1.0.0/16", "2001:db8:1::/48"]);
        for (address, may) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("11.0.0.1", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:10.1.0.1", false),
            ("2001:db8::1", true),
            ("2001:db8:1::1", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(office.admits(ip(address)), may, "{address}");
        }
        let all_but_one = access(None, &["192.0.2.7"]);
        assert!(all_but_one.admits(ip("192.0.2.6")) && !all_but_one.admits(ip("192.0.2.7")));
        // All of IPv6 is not all of IPv4.
        assert!(!access(Some(&["::/0"]), &[]).admits(ip("192.0.2.1")));
        assert!(access(None, &["::/0"]).admits(ip("::ffff:192.0.2.1")));
    }

    /// One bit after the other, prefix by prefix.
    fn matches_bit_by_bit(prefix: (IpAddr, u8), ip: IpAddr) -> bool {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (a, b) = (octets(prefix.0), octets(ip));
        let bit = |octets: &[u8], n: u8| octets[usize::from(n / 8)] >> (7 - n % 8) & 1;
        a.len() == b.len() && (0..prefix.1).all(|n| bit(&a, n) == bit(&b, n))
    }

    /// Whatever the lists are: a visitor may come if and only if no prefix of `deny` matches it bit by bit, and one of
    /// `allow` does or there is none.
    #[test]
    fn random_lists_behave_like_the_simple_model() {
        let (mut admitted, mut tried) = (0, 0);
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            // Few different bits, so that prefixes overlap, touch, and match.
            let address = |random: &mut fastrand::Rng| -> IpAddr {
                let few = |random: &mut fastrand::Rng| [0, 1, 127, 128, 255][random.usize(..5)];
                if random.bool() {
                    IpAddr::V4(Ipv4Addr::from([10, few(random), few(random), few(random)]))
                } else {
                    let mut octets = [0; 16];
                    octets.iter_mut().step_by(5).for_each(|octet| *octet = few(random));
                    IpAddr::V6(octets.into())
                }
            };
            let list = |random: &mut fastrand::Rng| -> Vec<(IpAddr, u8)> {
                (0..random.usize(..12))
                    .map(|_| {
                        let ip = address(random);
                        let most = if ip.is_ipv4() { 32 } else { 128 };
                        (ip, random.u8(..=most))
                    })
                    .collect()
            };
            let allow = random.bool().then(|| list(&mut random));
            let deny = list(&mut random);
            let parse = |list: &[(IpAddr, u8)]| {
                list.iter().map(|(ip, bits)| prefix(&format!("{ip}/{bits}"))).collect::<Vec<_>>()
            };
            let access = Access::new(allow.as_deref().map(parse).as_deref(), &parse(&deny));
            let known: Vec<IpAddr> = allow.iter().flatten().chain(&deny).map(|(ip, _)| *ip).collect();
            for _ in 0..200 {
                let ip = match random.choice(&known).filter(|_| random.bool()) {
                    Some(IpAddr::V4(ip)) => IpAddr::V4((ip.to_bits() ^ (1 << random.u8(..32))).into()),
                    Some(IpAddr::V6(ip)) => {
                        IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ (1 << random.u8(..128))))
                    }
                    None => address(&mut random),
                };
                let among = |list: &[(IpAddr, u8)]| list.iter().any(|each| matches_bit_by_bit(*each, ip));
                let may = !among(&deny) && allow.as_deref().is_none_or(among);
                assert_eq!(access.admits(ip), may, "seed {seed}: {ip}, allow {allow:?}, deny {deny:?}");
                admitted += usize::from(may);
                tried += 1;
            }
        }
        assert!(admitted > tried / 20 && admitted < tried * 19 / 20, "{admitted} of {tried}");
    }
}
