//! The programs of the corpus, with their work and the moment at which their pages are taken.
//!
//! The packages are those of `tests/packages.txt`. The inputs are what every machine with these packages
//! has: the programs' own libraries, and the system's C headers.

use super::program::{Moment, Program, Work};

const MIB: u64 = 1 << 20;

/// Every program.
pub(super) const PROGRAMS: [Program; 8] = [
    Program {
        name: "python3",
        version: &["/usr/bin/python3", "--version"],
        work: "syntax trees of its library",
        line: &["/usr/bin/python3", "{folder}/trees.py"],
        prepare: Work::Source("trees.py", include_str!("../../programs/trees.py")),
        moment: Moment::Ready,
    },
    Program {
        name: "node",
        version: &["node", "--version"],
        work: "index of the words of C headers",
        line: &["node", "{folder}/index.js"],
        prepare: Work::Headers("index.js", include_str!("../../programs/index.js")),
        moment: Moment::Ready,
    },
    Program {
        name: "java",
        version: &["java", "--version"],
        work: "index of the words of C headers",
        line: &["java", "-XX:-UsePerfData", "{folder}/Index.java"],
        prepare: Work::Headers("Index.java", include_str!("../../programs/Index.java")),
        moment: Moment::Ready,
    },
    Program {
        name: "go",
        version: &["go", "version"],
        work: "syntax trees of its library",
        line: &["go", "run", "{folder}/parse.go"],
        prepare: Work::Source("parse.go", include_str!("../../programs/parse.go")),
        moment: Moment::Ready,
    },
    Program {
        name: "cc1plus",
        version: &["g++", "--version"],
        work: "compiles C++ with -O2",
        line: &["g++", "-O2", "-c", "-o", "/dev/null", "{folder}/many.cc"],
        prepare: Work::Cxx,
        moment: Moment::Holds(160 * MIB),
    },
    Program {
        name: "rustc",
        version: &["rustc", "--version"],
        work: "compiles Rust with -O",
        line: &[
            "rustc",
            "-O",
            "--crate-type",
            "rlib",
            "-o",
            "{folder}/many.rlib",
            "{folder}/many.rs",
        ],
        prepare: Work::Rust,
        moment: Moment::Holds(160 * MIB),
    },
    Program {
        name: "redis-server",
        version: &["redis-server", "--version"],
        work: "lines of C headers as hashes",
        line: &[
            // It would outlive us if we were killed; the others end with their input or by themselves.
            "timeout",
            "300",
            "redis-server",
            "--port",
            "0",
            "--save",
            "",
            "--unixsocket",
            "{folder}/redis",
        ],
        prepare: Work::Redis,
        moment: Moment::Fed,
    },
    Program {
        name: "sqlite3",
        version: &["sqlite3", "--version"],
        work: "lines of C headers in a table with two indices",
        line: &["sqlite3", ":memory:"],
        prepare: Work::Sqlite,
        moment: Moment::Ready,
    },
];
