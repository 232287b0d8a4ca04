//! Lenders with the only copies: a notice, and time to move.

use super::lender::{Borrower, Lender};
use crate::support::plain_only;

#[test]
fn with_two_copies_everything_has_moved_before_a_lender_ends() {
    if plain_only() {
        return;
    }
    let options = [
        "--ram",
        "96M",
        "--durability",
        "two-copies",
        "--notice",
        "80",
    ];
    let mut lenders = vec![Lender::start(&options)];
    let password = lenders[0].password();
    // A borrower has one password for all.
    lenders.extend((1..3).map(|_| Lender::start_with(&password, &options)));
    let urls: Vec<String> = lenders.iter().map(Lender::url).collect();
    let remotes: Vec<&str> = urls.iter().flat_map(|url| ["--remote", url]).collect();
    let mut words = remotes.clone();
    words.extend(["--remote-durability", "two-copies", "--swap", "none"]);
    let mut borrower = Borrower::start(40, &password, &words);
    borrower.await_passes(1);
    let status = lenders[0].end("TERM");
    assert_eq!(status.code(), Some(0), "{}", lenders[0].err());
    lenders[0].await_words("borrowers have moved everything");
    borrower.await_passes(2);
    assert_eq!(borrower.end("blocks_lost"), 0);
}
