//! Judges URLs and addresses: where a request that someone else named may go.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use url::{Host, Url};

use crate::address::AddressClass;

/// Names that never mean a public host (RFC 6761, RFC 6762, RFC 8375, ICANN's reservation of `internal`), each with
/// everything below it.
const LOCAL_NAMES: &[&str] = &["localhost", "localdomain", "local", "internal", "home.arpa"];

/// Why a URL may not be fetched. The same URL is refused again, so there is nothing to retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the scheme {scheme:?} is not http or https")]
    Scheme { scheme: String },
    #[error("the URL holds a user name or password")]
    Credentials,
    #[error("the URL names no host")]
    NoHost,
    #[error("{host} is a name for local hosts")]
    LocalName { host: String },
    #[error("{}", describe(host, *address, class))]
    Address {
        host: String,
        address: IpAddr,
        class: AddressClass,
    },
}

/// The rule for all requests of one [`crate::GuardedClient`]: public addresses, and what the operator listed.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Arc<HashSet<HostPort>>,
}

impl Guard {
    /// A guard that lets `allow` through beside public addresses. The list comes from the operator, never from a tenant.
    pub fn new(allow: Vec<HostPort>) -> Self {
        Self {
            allow: Arc::new(allow.into_iter().collect()),
        }
    }

    /// What can be known without asking DNS. A URL that passes may still be refused when its name is resolved.
    pub fn judge_url(&self, url: &Url) -> Result<(), Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme {
                scheme: url.scheme().to_owned(),
            });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Credentials);
        }
        let host = url.host().ok_or(Refusal::NoHost)?;
        if self.is_listed(url) {
            return Ok(());
        }
        match host {
            Host::Ipv4(address) => judge_address(&address.to_string(), address.into()),
            Host::Ipv6(address) => judge_address(&address.to_string(), address.into()),
            Host::Domain(name) => judge_name(name),
        }
    }

    /// Whether the operator listed exactly this host and port. Such a host is not judged by its addresses.
    pub fn is_listed(&self, url: &Url) -> bool {
        let Some((host, port)) = url.host().zip(url.port_or_known_default()) else {
            return false;
        };
        !self.allow.is_empty()
            && self.allow.contains(&HostPort {
                host: without_final_dot(host.to_owned()),
                port,
            })
    }

    pub(crate) fn lists_nothing(&self) -> bool {
        self.allow.is_empty()
    }
}

/// Refuses every address that is not public; `host` is what the URL said.
pub(crate) fn judge_address(host: &str, address: IpAddr) -> Result<(), Refusal> {
    let class = AddressClass::of(address);
    if class.is_public() {
        return Ok(());
    }
    Err(Refusal::Address {
        host: host.to_owned(),
        address,
        class,
    })
}

/// The URL parser has already lowered the name and turned numeric spellings into addresses.
fn judge_name(name: &str) -> Result<(), Refusal> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_or_is_below = |local: &str| {
        name.strip_suffix(local)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if name.is_empty() {
        return Err(Refusal::NoHost);
    }
    if LOCAL_NAMES.iter().any(|local| is_or_is_below(local)) {
        return Err(Refusal::LocalName {
            host: name.to_owned(),
        });
    }
    Ok(())
}

/// One host and port, as an operator lists it: `intranet.example:8080`, `10.0.0.5:443`, `[fd00::5]:80`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: Host<String>,
    port: u16,
}

fn describe(host: &str, address: IpAddr, class: &AddressClass) -> String {
    let is_itself = host.trim_matches(['[', ']']).parse() == Ok(address);
    if is_itself {
        format!("{address} is a {class} address")
    } else {
        format!("{host} leads to {address}, a {class} address")
    }
}

/// The text is not `host:port` with a port from 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct HostPortError(String);

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || HostPortError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(error)?;
        // An IPv6 address without brackets would make the last colon ambiguous; Host::parse refuses it.
        let host = Host::parse(host).map_err(|_| error())?;
        Ok(Self {
            host: without_final_dot(host),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `example.org.` and `example.org` are one host.
fn without_final_dot<S: AsRef<str>>(host: Host<S>) -> Host<String> {
    match host {
        Host::Domain(name) => {
            let name = name.as_ref();
            Host::Domain(name.strip_suffix('.').unwrap_or(name).to_owned())
        }
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => Host::Ipv6(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(guard: &Guard, url: &str) -> Result<(), Refusal> {
        guard.judge_url(&Url::parse(url).expect("the test names a URL"))
    }

    fn listing(entries: &[&str]) -> Guard {
        Guard::new(
            entries
                .iter()
                .map(|entry| entry.parse().expect("the test lists host:port"))
                .collect(),
        )
    }

    #[test]
    fn every_spelling_of_a_loopback_or_metadata_address_is_refused() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://127.0.0.1:6666\\@1.1.1.1/",
            "http://①②⑦.0.0.1/",
            "http://%31%32%37.0.0.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://0xa9fea9fe/",
            "http://[fd00:ec2::254]/",
        ] {
            let refusal = judge(&Guard::default(), url).expect_err(url);
            assert!(matches!(refusal, Refusal::Address { .. }), "{url}: {refusal}");
        }
    }

    #[test]
    fn other_schemes_credentials_and_local_names_are_refused() {
        let refused = [
            (
                "file:///etc/passwd",
                Refusal::Scheme {
                    scheme: "file".into(),
                },
            ),
            ("ftp://example.org/", Refusal::Scheme { scheme: "ftp".into() }),
            (
                "gopher://example.org/",
                Refusal::Scheme {
                    scheme: "gopher".into(),
                },
            ),
            (
                "data:text/html,hello",
                Refusal::Scheme {
                    scheme: "data".into(),
                },
            ),
            ("https://user@example.org/", Refusal::Credentials),
            ("https://:secret@example.org/", Refusal::Credentials),
            ("http://1.1.1.1@127.0.0.1/", Refusal::Credentials),
            (
                "http://localhost/",
                Refusal::LocalName {
                    host: "localhost".into(),
                },
            ),
            (
                "http://LOCALHOST.:80/",
                Refusal::LocalName {
                    host: "localhost".into(),
                },
            ),
            (
                "http://printer.local/",
                Refusal::LocalName {
                    host: "printer.local".into(),
                },
            ),
            (
                "http://metadata.google.internal/",
                Refusal::LocalName {
                    host: "metadata.google.internal".into(),
                },
            ),
        ];
        for (url, refusal) in refused {
            assert_eq!(judge(&Guard::default(), url), Err(refusal), "{url}");
        }
    }

    #[test]
    fn public_hosts_pass() {
        for url in [
            "https://example.org/",
            "http://example.org:8080/a?b#c",
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
            "https://notlocalhost/",
            "https://münchen.example/",
        ] {
            assert_eq!(judge(&Guard::default(), url), Ok(()), "{url}");
        }
    }

    #[test]
    fn the_operators_list_lets_through_exactly_the_host_and_port_it_names() {
        let guard = listing(&["127.0.0.1:8080", "intranet.local:443", "[::1]:9000"]);
        for url in [
            "http://127.0.0.1:8080/x",
            "http://2130706433:8080/",
            "https://intranet.local/",
            "https://INTRANET.local./",
            "http://[0:0::1]:9000/",
        ] {
            assert_eq!(judge(&guard, url), Ok(()), "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://127.0.0.1:8081/",
            "http://127.0.0.2:8080/",
            "http://intranet.local/",
            "https://www.intranet.local/",
            "http://localhost:8080/",
            "http://[::1]/",
            "http://user@127.0.0.1:8080/",
            "ftp://127.0.0.1:8080/",
        ] {
            assert!(judge(&guard, url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_entry_of_the_list_is_a_host_and_a_port() {
        for entry in [
            "",
            "example.org",
            "example.org:",
            ":80",
            "example.org:0",
            "example.org:65536",
            "fd00::5",
            "a b:80",
        ] {
            assert!(entry.parse::<HostPort>().is_err(), "{entry}");
        }
        let entry: HostPort = "EXAMPLE.org:80".parse().expect("host and port");
        assert_eq!(entry.to_string(), "example.org:80");
    }

    proptest::proptest! {
        #[test]
        fn a_private_address_is_refused_in_every_way_to_write_it(c: u16, d: u8) {
            let [hi, lo] = c.to_be_bytes();
            let bits = u32::from_be_bytes([10, hi, lo, d]);
            let urls = [
                format!("http://10.{hi}.{lo}.{d}/"),
                format!("http://{bits}/"),
                format!("http://{bits:#x}/"),
                format!("http://0{bits:o}/"),
                format!("http://0xa.0{hi:o}.{lo}.{d:#x}/"),
                format!("http://10.{hi}.{}/", u32::from(lo) * 256 + u32::from(d)),
                format!("http://[::ffff:10.{hi}.{lo}.{d}]/"),
            ];
            for url in urls {
                proptest::prop_assert!(judge(&Guard::default(), &url).is_err(), "{}", url);
            }
        }
    }
}
