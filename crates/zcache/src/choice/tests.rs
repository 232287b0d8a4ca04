//! What is chosen in which situation.

use super::*;

const FAST: CodecCost = CodecCost {
    encode_ns: 5_000.0,
    decode_ns: 1_800.0,
    zpage_bytes: 1_300.0,
};
const DENSE: CodecCost = CodecCost {
    encode_ns: 10_000.0,
    decode_ns: 4_600.0,
    zpage_bytes: 850.0,
};

/// A second of a program's life, with pages and faults in thousands.
struct Situation {
    name: &'static str,
    processors: f64,
    /// Of the time of all processors, what they had nothing to do for.
    idle: f64,
    stores: f64,
    loads: f64,
    faults: f64,
    /// What the dense codec would have left of the loads.
    spared_to: f64,
    /// Loads from the tier of all loads, with the fast codec and with the dense codec.
    from_tier: [f64; 2],
    now: Codec,
    wanted: Codec,
}

const QUIET: Situation = Situation {
    name: "nothing happens",
    processors: 2.0,
    idle: 1.0,
    stores: 0.0,
    loads: 0.0,
    faults: 0.0,
    spared_to: 1.0,
    from_tier: [0.0; 2],
    now: Codec::FAST,
    wanted: Codec::DENSE,
};

fn wanted(situation: &Situation) -> Codec {
    let s = situation;
    let traffic = Traffic {
        time_ns: 1e9,
        idle_ns: s.idle * s.processors * 1e9,
        stores: s.stores * 1e3,
        loads: s.loads * 1e3,
    };
    // As if all had been by the codec of now.
    let outlook = |codec: Codec| {
        let all = match (s.now == Codec::DENSE, codec == Codec::DENSE) {
            (false, true) => s.spared_to,
            (true, false) => 1.0 / s.spared_to,
            _ => 1.0,
        };
        let tier = s.from_tier[usize::from(codec == Codec::DENSE)];
        let faults = s.faults * 1e3 * all;
        Outlook {
            stores: traffic.stores * all,
            loads: traffic.loads * all,
            wait_ns: faults * (10_000.0 + tier * 80_000.0),
            work_ns: faults * 10_000.0 + traffic.loads * all * 3_000.0,
        }
    };
    let cost = |codec| if codec == Codec::FAST { FAST } else { DENSE };
    let before = (outlook(s.now), cost(s.now));
    let times = [Codec::FAST, Codec::DENSE].map(|codec| {
        let then = (outlook(codec), cost(codec));
        time_ns(&traffic, s.processors, &before, &then)
    });
    choose(s.now, times)
}

#[test]
fn situations_and_what_is_chosen_in_them() {
    let table = [
        QUIET,
        Situation {
            name: "a thousand faults a second",
            idle: 0.9,
            stores: 1.0,
            loads: 1.0,
            faults: 1.0,
            ..QUIET
        },
        Situation {
            name: "a sweep that keeps both processors busy",
            idle: 0.02,
            stores: 90.0,
            loads: 90.0,
            faults: 1.5,
            now: Codec::DENSE,
            wanted: Codec::FAST,
            ..QUIET
        },
        Situation {
            name: "the same, and the fast codec goes on",
            idle: 0.02,
            stores: 170.0,
            loads: 170.0,
            faults: 2.7,
            wanted: Codec::FAST,
            ..QUIET
        },
        Situation {
            name: "memory is filled faster than it is packed",
            idle: 0.02,
            stores: 150.0,
            now: Codec::DENSE,
            wanted: Codec::FAST,
            ..QUIET
        },
        Situation {
            name: "memory is filled while processors have time",
            processors: 8.0,
            idle: 0.7,
            stores: 150.0,
            now: Codec::DENSE,
            ..QUIET
        },
        Situation {
            name: "faults in random order, a fifth of which the dense codec spares",
            idle: 0.3,
            stores: 50.0,
            loads: 50.0,
            faults: 50.0,
            spared_to: 0.8,
            ..QUIET
        },
        Situation {
            name: "the same where the dense codec spares none",
            idle: 0.3,
            stores: 50.0,
            loads: 50.0,
            faults: 50.0,
            now: Codec::DENSE,
            wanted: Codec::FAST,
            ..QUIET
        },
        Situation {
            name: "faults that go to the disk with the fast codec and not with the dense codec",
            idle: 0.4,
            stores: 20.0,
            loads: 20.0,
            faults: 20.0,
            from_tier: [0.4, 0.02],
            ..QUIET
        },
        Situation {
            name: "other programs keep the processors busy while pages come and go",
            idle: 0.0,
            stores: 30.0,
            loads: 30.0,
            faults: 2.0,
            now: Codec::DENSE,
            wanted: Codec::FAST,
            ..QUIET
        },
        Situation {
            name: "between the thresholds nothing changes: by the dense codec",
            idle: 0.5,
            stores: 12.0,
            loads: 12.0,
            faults: 12.0,
            now: Codec::DENSE,
            ..QUIET
        },
        Situation {
            name: "between the thresholds nothing changes: by the fast codec",
            idle: 0.5,
            stores: 12.0,
            loads: 12.0,
            faults: 12.0,
            wanted: Codec::FAST,
            ..QUIET
        },
    ];
    for situation in &table {
        assert_eq!(wanted(situation), situation.wanted, "{}", situation.name);
    }
}
