//! Which IP addresses are public: the special-purpose registries of IANA (RFC 6890 and its updates) as tables.
//!
//! Anything not globally reachable is refused, and so is every address that carries an IPv4 address inside an IPv6 one,
//! because the carrier decides where it ends up. Cloud metadata services are named although most of them lie in refused
//! ranges anyway: one of them (168.63.129.16) does not.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is. Only [`AddressClass::Public`] may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    Public,
    Loopback,
    Private,
    LinkLocal,
    /// Carrier-grade NAT (RFC 6598).
    Shared,
    Multicast,
    Documentation,
    /// Unassigned, benchmarking, protocol assignments, and "this network".
    Reserved,
    /// IPv4 inside IPv6: mapped, compatible, 6to4, Teredo, NAT64.
    EmbedsIpv4,
    /// Metadata and host services of cloud providers.
    HostService,
}

impl AddressClass {
    /// The class of `address`; the first matching line of the table decides.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => class_v4(address),
            IpAddr::V6(address) => class_v6(address),
        }
    }

    pub fn is_public(self) -> bool {
        self == Self::Public
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Shared => "shared",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Reserved => "reserved",
            Self::EmbedsIpv4 => "IPv4-in-IPv6",
            Self::HostService => "cloud metadata",
        })
    }
}

/// Network, prefix length in bits, class. Single services stand before the ranges they lie in.
const SPECIAL_V4: &[(Ipv4Addr, u32, AddressClass)] = &[
    (Ipv4Addr::new(169, 254, 169, 254), 32, AddressClass::HostService), // AWS, Azure, Google and others
    (Ipv4Addr::new(169, 254, 170, 2), 32, AddressClass::HostService),   // AWS container credentials
    (Ipv4Addr::new(168, 63, 129, 16), 32, AddressClass::HostService), // Azure host service, in a public range
    (Ipv4Addr::new(100, 100, 100, 200), 32, AddressClass::HostService), // Alibaba
    (Ipv4Addr::new(192, 0, 0, 192), 32, AddressClass::HostService),   // Oracle
    (Ipv4Addr::new(0, 0, 0, 0), 8, AddressClass::Reserved),
    (Ipv4Addr::new(10, 0, 0, 0), 8, AddressClass::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, AddressClass::Shared),
    (Ipv4Addr::new(127, 0, 0, 0), 8, AddressClass::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, AddressClass::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, AddressClass::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, AddressClass::Reserved),
    (Ipv4Addr::new(192, 0, 2, 0), 24, AddressClass::Documentation),
    (Ipv4Addr::new(192, 88, 99, 0), 24, AddressClass::Reserved), // former 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16, AddressClass::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, AddressClass::Reserved), // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24, AddressClass::Documentation),
    (Ipv4Addr::new(203, 0, 113, 0), 24, AddressClass::Documentation),
    (Ipv4Addr::new(224, 0, 0, 0), 4, AddressClass::Multicast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, AddressClass::Reserved), // with the broadcast address
];

const SPECIAL_V6: &[(Ipv6Addr, u32, AddressClass)] = &[
    (
        v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]),
        128,
        AddressClass::HostService,
    ), // AWS
    (
        v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]),
        128,
        AddressClass::HostService,
    ), // Google
    (Ipv6Addr::UNSPECIFIED, 128, AddressClass::Reserved),
    (Ipv6Addr::LOCALHOST, 128, AddressClass::Loopback),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0]), 96, AddressClass::EmbedsIpv4), // mapped
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0]), 96, AddressClass::EmbedsIpv4), // translated (RFC 2765)
    (v6([0; 8]), 96, AddressClass::EmbedsIpv4),                        // compatible
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0]), 96, AddressClass::EmbedsIpv4), // NAT64
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0]), 48, AddressClass::EmbedsIpv4), // local NAT64
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 32, AddressClass::EmbedsIpv4), // Teredo
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 23, AddressClass::Reserved),   // protocol assignments
    (
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]),
        32,
        AddressClass::Documentation,
    ),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0]), 16, AddressClass::EmbedsIpv4), // 6to4
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0]), 20, AddressClass::Documentation),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7, AddressClass::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10, AddressClass::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0]), 10, AddressClass::Private), // former site-local
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8, AddressClass::Multicast),
];

/// The only part of the IPv6 space that is handed out for global unicast.
const GLOBAL_V6: (Ipv6Addr, u32) = (v6([0x2000, 0, 0, 0, 0, 0, 0, 0]), 3);

const fn v6(s: [u16; 8]) -> Ipv6Addr {
    Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7])
}

fn class_v4(address: Ipv4Addr) -> AddressClass {
    let within =
        |network: Ipv4Addr, prefix: u32| (address.to_bits() ^ network.to_bits()) >> (32 - prefix) == 0;
    SPECIAL_V4
        .iter()
        .find(|(network, prefix, _)| within(*network, *prefix))
        .map_or(AddressClass::Public, |(_, _, class)| *class)
}

fn class_v6(address: Ipv6Addr) -> AddressClass {
    let within =
        |network: Ipv6Addr, prefix: u32| (address.to_bits() ^ network.to_bits()) >> (128 - prefix) == 0;
    let special = SPECIAL_V6
        .iter()
        .find(|(network, prefix, _)| within(*network, *prefix));
    match special {
        Some((_, _, class)) => *class,
        None if within(GLOBAL_V6.0, GLOBAL_V6.1) => AddressClass::Public,
        None => AddressClass::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(address: &str) -> AddressClass {
        AddressClass::of(address.parse().expect("the test names an address"))
    }

    #[test]
    fn every_special_range_is_refused_at_its_first_and_last_address() {
        use AddressClass::*;
        let ranges = [
            ("0.0.0.0", "0.255.255.255", Reserved),
            ("10.0.0.0", "10.255.255.255", Private),
            ("100.64.0.0", "100.127.255.255", Shared),
            ("127.0.0.0", "127.255.255.255", Loopback),
            ("169.254.0.0", "169.254.255.255", LinkLocal),
            ("172.16.0.0", "172.31.255.255", Private),
            ("192.0.0.0", "192.0.0.255", Reserved),
            ("192.0.2.0", "192.0.2.255", Documentation),
            ("192.88.99.0", "192.88.99.255", Reserved),
            ("192.168.0.0", "192.168.255.255", Private),
            ("198.18.0.0", "198.19.255.255", Reserved),
            ("198.51.100.0", "198.51.100.255", Documentation),
            ("203.0.113.0", "203.0.113.255", Documentation),
            ("224.0.0.0", "239.255.255.255", Multicast),
            ("240.0.0.0", "255.255.255.255", Reserved),
            ("::", "::", Reserved),
            ("::1", "::1", Loopback),
            ("::2", "::ffff:ffff", EmbedsIpv4),
            ("::ffff:0.0.0.0", "::ffff:255.255.255.255", EmbedsIpv4),
            ("::ffff:0:0.0.0.0", "::ffff:0:255.255.255.255", EmbedsIpv4),
            ("64:ff9b::", "64:ff9b::ffff:ffff", EmbedsIpv4),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", EmbedsIpv4),
            ("100::", "100::ffff:ffff:ffff:ffff", Reserved),
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", EmbedsIpv4),
            ("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            (
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                Documentation,
            ),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", EmbedsIpv4),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Documentation),
            ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LinkLocal),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast),
        ];
        for (first, last, expected) in ranges {
            assert_eq!(class(first), expected, "{first}");
            assert_eq!(class(last), expected, "{last}");
        }
    }

    #[test]
    fn metadata_and_host_services_are_refused_wherever_they_lie() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert_eq!(class(address), AddressClass::HostService, "{address}");
        }
    }

    #[test]
    fn neighbours_of_special_ranges_are_public() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::",
            "2606:4700::1111",
            "3ffe:ffff::",
            "3fff:1000::",
        ] {
            assert_eq!(class(address), AddressClass::Public, "{address}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_random_address_that_the_standard_library_calls_special_is_public(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified();
            proptest::prop_assert!(!(special && AddressClass::of(address.into()).is_public()));
        }

        #[test]
        fn no_ipv4_address_inside_an_ipv6_address_is_public(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            let carriers = [
                address.to_ipv6_mapped(),
                v6([0, 0, 0, 0, 0, 0, a, b]),
                v6([0x64, 0xff9b, 0, 0, 0, 0, a, b]),
                v6([0x2002, a, b, 0, 0, 0, 0, 1]),
                v6([0x2001, 0, a, b, 0, 0, !a, !b]),
            ];
            for carrier in carriers {
                proptest::prop_assert!(!AddressClass::of(carrier.into()).is_public(), "{}", carrier);
            }
        }

        #[test]
        fn every_address_inside_a_private_network_is_refused(
            network in proptest::sample::select(SPECIAL_V4.to_vec()), offset: u32,
        ) {
            let host_bits = u32::MAX.checked_shr(network.1).unwrap_or(0);
            let address = Ipv4Addr::from_bits(network.0.to_bits() | (offset & host_bits));
            proptest::prop_assert!(!AddressClass::of(address.into()).is_public(), "{}", address);
        }
    }
}
