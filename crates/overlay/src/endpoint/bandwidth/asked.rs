//! What is asked for: the rates of a call, checked, and the token buckets that they mean. Pure.

use std::iter;

use cni::Call;
use netlink::Bucket;
use plugin::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The key in the configuration, and in `runtimeConfig`.
const KEY: &str = "bandwidth";
const KEYS: [&str; 6] = [
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "shapedSubnets",
    "unshapedSubnets",
];
/// A burst of so many bits and more was not asked for: runtimes write it where they mean none (kubelet once 2^31 - 1, containerd
/// 2^32 - 1, CRI-O nearly 2^35). With it the first quarter of a gigabyte would pass at any rate.
const NO_WISH: u64 = (1 << 31) - 1;
/// The burst if none was asked for: this part of a second at the rate, and at least so many bytes.
const USUAL_BURST: u64 = 100;
const LEAST_BURST: u64 = 128 << 10;
/// How long a packet may wait behind a burst, in parts of a second: 25 ms, as in the reference.
const LATENCY: u64 = 40;
/// Bytes that may wait at the lowest rates: more than a connection begins with.
const LEAST_QUEUE: u64 = 32 << 10;
/// Bytes that a frame has beside the MTU: Ethernet's header, and a VLAN's.
const HEADERS: u64 = 18;

/// A limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate {
    /// Bits a second.
    pub rate: u64,
    /// Bits that may pass at once after a rest.
    pub burst: u64,
}

/// The limits of an attachment; a direction without one has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// Towards the container.
    pub ingress: Option<Rate>,
    /// From the container.
    pub egress: Option<Rate>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    bandwidth: Option<Asked>,
    runtime_config: Option<WireRuntime>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireRuntime {
    bandwidth: Option<Asked>,
}

/// As in the reference, where 0 is none.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
    shaped_subnets: Vec<Value>,
    unshaped_subnets: Vec<Value>,
}

impl Bandwidth {
    /// What a call asks for: a direction in `runtimeConfig.bandwidth` comes before the same in `bandwidth`. Codes 7 and 2,
    /// naming key and value.
    pub fn read(call: &Call) -> Result<Self, Error> {
        refuse_unknown(&call.conf.raw)?;
        let wire: Wire = call.conf.decode()?;
        let read = |asked: Option<Asked>, key: &str| asked.unwrap_or_default().checked(key);
        let configured = read(wire.bandwidth, KEY)?;
        let runtime = wire.runtime_config.and_then(|runtime| runtime.bandwidth);
        let asked = read(runtime, &format!("runtimeConfig.{KEY}"))?;
        Ok(Self {
            ingress: asked.ingress.or(configured.ingress),
            egress: asked.egress.or(configured.egress),
        })
    }

    /// Whether nothing is limited.
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "the shape that serde wants"
    )]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The stricter of both in each direction.
    pub(super) fn and(self, other: Self) -> Self {
        let stricter = |one: Option<Rate>, other: Option<Rate>| one.into_iter().chain(other).min();
        Self {
            ingress: stricter(self.ingress, other.ingress),
            egress: stricter(self.egress, other.egress),
        }
    }
}

impl Asked {
    fn checked(&self, key: &str) -> Result<Bandwidth, Error> {
        let subnets = [
            ("shapedSubnets", &self.shaped_subnets),
            ("unshapedSubnets", &self.unshaped_subnets),
        ];
        if let Some((name, list)) = subnets.iter().find(|(_, list)| !list.is_empty()) {
            let list = Value::Array((*list).clone());
            let why = "not supported: the rates hold for all that the container receives and sends";
            return Err(Error::unsupported(format!("{key}.{name}: {list}: {why}")));
        }
        let direction = |name: &str, rate, burst| checked(&format!("{key}.{name}"), rate, burst);
        Ok(Bandwidth {
            ingress: direction("ingress", self.ingress_rate, self.ingress_burst)?,
            egress: direction("egress", self.egress_rate, self.egress_burst)?,
        })
    }
}

/// A limit, if its numbers can be meant; what the reference refuses is refused. `key` lacks its last word.
fn checked(key: &str, rate: u64, burst: u64) -> Result<Option<Rate>, Error> {
    let bad = |word: &str, value: u64, why: &str| {
        Err(Error::config(format!("{key}{word}: {value}: {why}")))
    };
    match (rate, burst) {
        (0, 0) => Ok(None),
        (_, 0) => bad(
            "Burst",
            0,
            &format!("with {key}Rate {rate}, want the burst in bits"),
        ),
        (0, _) => bad(
            "Rate",
            0,
            &format!("with {key}Burst {burst}, want bits a second"),
        ),
        (1..8, _) => bad("Rate", rate, "want 8 bits a second or more"),
        _ if burst / 8 >= u64::from(u32::MAX) => {
            bad("Burst", burst, "want less than 34359738360 bits (4 GiB)")
        }
        _ => Ok(Some(Rate { rate, burst })),
    }
}

/// Only this plugin reads these objects: a misspelt key would be a limit that is not kept.
fn refuse_unknown(conf: &Value) -> Result<(), Error> {
    let runtime = below(conf, "runtimeConfig").map(|runtime| ("runtimeConfig.", runtime));
    for (path, holder) in iter::once(("", conf)).chain(runtime) {
        let asked = below(holder, KEY).filter_map(Value::as_object).flatten();
        for (key, value) in asked {
            if !KEYS.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                let want = KEYS[..4].join(", ");
                let msg = format!("{path}{KEY}.{key}: {value}: unknown key; want {want}");
                return Err(Error::config(msg));
            }
        }
    }
    Ok(())
}

/// What an object has at a key, in any case.
fn below<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let keys = object.as_object().into_iter().flatten();
    keys.filter(move |(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

impl Rate {
    /// The bucket of a port of this MTU, in bytes. A burst of less than a frame would let nothing pass, and is one frame.
    pub(super) fn bucket(self, mtu: u32) -> Bucket {
        let rate = self.rate / 8;
        let frame = u64::from(mtu) + HEADERS;
        let burst = if self.burst >= NO_WISH {
            LEAST_BURST.max(rate / USUAL_BURST)
        } else {
            self.burst / 8
        };
        let burst = burst.max(frame);
        let waiting = (rate / LATENCY).max(LEAST_QUEUE) + burst.min(LEAST_BURST);
        let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Bucket {
            rate,
            burst: narrow(burst),
            limit: narrow(waiting),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64, burst: u64, mtu: u32) -> (u64, u32, u32) {
        let Bucket { rate, burst, limit } = Rate { rate, burst }.bucket(mtu);
        (rate, burst, limit)
    }

    #[test]
    fn bits_become_bytes_and_a_packet_waits_25_milliseconds_behind_a_burst() {
        // 80 Mbit/s are 10 MB/s, of which 25 ms are 250 kB.
        assert_eq!(
            bucket(80_000_000, 400_000, 1450),
            (10_000_000, 50_000, 300_000)
        );
        // A large burst does not wait: it has passed.
        let most = 250_000 + (128 << 10);
        assert_eq!(
            bucket(80_000_000, 80_000_000, 1450),
            (10_000_000, 10_000_000, most)
        );
        // At a low rate as much may wait as a connection begins with.
        assert_eq!(
            bucket(64_000, 160_000, 1450),
            (8000, 20_000, 32_768 + 20_000)
        );
    }

    #[test]
    fn a_frame_always_fits_into_the_bucket() {
        assert_eq!(bucket(2048, 1600, 1450), (256, 1468, 32_768 + 1468));
        assert_eq!(bucket(2048, 1600, 65_535), (256, 65_553, 32_768 + 65_553));
    }

    #[test]
    fn a_burst_that_was_not_asked_for_is_a_hundredth_of_a_second() {
        for burst in [u64::from(u32::MAX) >> 1, u64::from(u32::MAX), (1 << 35) - 9] {
            assert_eq!(bucket(10_000_000, burst, 1450).1, 128 << 10);
            assert_eq!(bucket(10_000_000_000, burst, 1450).1, 12_500_000);
        }
        assert_eq!(
            bucket(8000, (1 << 31) - 2, 1450).1,
            (1 << 28) - 1,
            "the last one that counts"
        );
    }

    #[test]
    fn rates_beyond_32_bits_of_bytes_are_kept_whole() {
        let wide = bucket(80_000_000_000, 800_000_000, 1450);
        assert_eq!(
            wide,
            (10_000_000_000, 100_000_000, 250_000_000 + (128 << 10))
        );
        let (rate, _, limit) = bucket(u64::MAX, 8, 1450);
        assert_eq!((rate, limit), (u64::MAX / 8, u32::MAX));
    }

    #[test]
    fn the_stricter_rate_of_each_direction_counts() {
        let rate = |rate| Some(Rate { rate, burst: 8 });
        let of = |ingress, egress| Bandwidth { ingress, egress };
        let one = of(rate(5), None);
        assert_eq!(one.and(of(rate(3), rate(9))), of(rate(3), rate(9)));
        assert_eq!(one.and(Bandwidth::default()), one);
        assert!(Bandwidth::default().is_none() && !one.is_none());
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        let told =
            |rate, burst| checked("k.ingress", rate, burst).map_err(|error| error.msg.clone());
        assert_eq!(told(0, 0), Ok(None));
        let largest = (1 << 35) - 9;
        assert!(told(8, largest).is_ok_and(|it| it.is_some()));
        for (rate, burst, says) in [
            (1000, 0, "k.ingressBurst: 0: with k.ingressRate 1000"),
            (0, 1000, "k.ingressRate: 0: with k.ingressBurst 1000"),
            (7, 1000, "k.ingressRate: 7: want 8 bits a second"),
            (8, largest + 1, "k.ingressBurst: 34359738360: want less"),
        ] {
            let text = told(rate, burst).unwrap_err();
            assert!(text.starts_with(says), "{text}");
        }
    }

    #[test]
    fn a_record_without_limits_is_that_of_older_binaries() {
        let none: Bandwidth = serde_json::from_str("{}").unwrap();
        assert!(none.is_none());
        let one = Bandwidth {
            ingress: Some(Rate { rate: 5, burst: 8 }),
            egress: None,
        };
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Bandwidth>(&text).unwrap(), one);
    }
}
