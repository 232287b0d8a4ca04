//! Instantiates the containers for many types.

use numbers::Sequence;
use shapes::digest;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row0 {
    key: [u64; 1],
    text: String,
    more: Option<Vec<(u8, u8)>>,
}

fn row_0(n: u64) -> Row0 {
    Row0 {
        key: [n % 3; 1],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u8)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row1 {
    key: [u64; 2],
    text: String,
    more: Option<Vec<(u8, u16)>>,
}

fn row_1(n: u64) -> Row1 {
    Row1 {
        key: [n % 4; 2],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u16)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row2 {
    key: [u64; 3],
    text: String,
    more: Option<Vec<(u8, u32)>>,
}

fn row_2(n: u64) -> Row2 {
    Row2 {
        key: [n % 5; 3],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u32)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row3 {
    key: [u64; 4],
    text: String,
    more: Option<Vec<(u8, u64)>>,
}

fn row_3(n: u64) -> Row3 {
    Row3 {
        key: [n % 6; 4],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u64)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row4 {
    key: [u64; 5],
    text: String,
    more: Option<Vec<(u8, u8)>>,
}

fn row_4(n: u64) -> Row4 {
    Row4 {
        key: [n % 7; 5],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u8)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row5 {
    key: [u64; 1],
    text: String,
    more: Option<Vec<(u8, u16)>>,
}

fn row_5(n: u64) -> Row5 {
    Row5 {
        key: [n % 8; 1],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u16)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row6 {
    key: [u64; 2],
    text: String,
    more: Option<Vec<(u8, u32)>>,
}

fn row_6(n: u64) -> Row6 {
    Row6 {
        key: [n % 9; 2],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u32)]),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row7 {
    key: [u64; 3],
    text: String,
    more: Option<Vec<(u8, u64)>>,
}

fn row_7(n: u64) -> Row7 {
    Row7 {
        key: [n % 10; 3],
        text: format!("{}", n % 100),
        more: (n % 3 == 0).then(|| vec![(n as u8, n as u64)]),
    }
}

fn main() {
    let mut sum = 0u64;
    sum = sum.rotate_left(3) ^ digest(Sequence(0).take(500).map(row_0));
    sum = sum.rotate_left(3) ^ digest(Sequence(1).take(500).map(row_1));
    sum = sum.rotate_left(3) ^ digest(Sequence(2).take(500).map(row_2));
    sum = sum.rotate_left(3) ^ digest(Sequence(3).take(500).map(row_3));
    sum = sum.rotate_left(3) ^ digest(Sequence(4).take(500).map(row_4));
    sum = sum.rotate_left(3) ^ digest(Sequence(5).take(500).map(row_5));
    sum = sum.rotate_left(3) ^ digest(Sequence(6).take(500).map(row_6));
    sum = sum.rotate_left(3) ^ digest(Sequence(7).take(500).map(row_7));
    println!("{sum:016x}");
}
