//! Memory-map calls, accepted and refused, and every way to look at a page that is out of RAM.

use super::support::{Setting, agree, agree_job, case};
use crate::support::tree;

#[test]
fn madvise_that_is_refused_drops_nothing() {
    agree("memory/madvise_refused", &[]);
}

#[test]
#[ignore = "differs: process_madvise is refused"]
fn process_madvise_is_the_kernels() {
    agree("memory/process_madvise", &[]);
}

#[test]
fn maps_that_are_refused_lose_nothing() {
    agree("memory/refused_maps", &[]);
}

#[test]
fn mremap_over_pages_that_are_brought_back() {
    agree("memory/mremap_target", &["over"]);
}

#[test]
fn mremap_over_pages_that_are_brought_back_beside_its_source() {
    agree("memory/mremap_target", &["merge"]);
}

#[test]
fn guard_pages_survive_sweeps() {
    agree("memory/guard_pages", &["near"]);
}

#[test]
fn guard_pages_in_memory_that_is_out() {
    agree("memory/guard_pages", &["evicted"]);
}

#[test]
fn guard_pages_are_inherited() {
    agree("memory/guard_pages", &["fork"]);
}

#[test]
fn guard_pages_before_a_hole() {
    agree("memory/guard_pages", &["half"]);
}

#[test]
fn guard_pages_survive_advice_and_protection() {
    agree("memory/guard_pages", &["advice"]);
}

#[test]
fn moved_private_memfd() {
    agree("memory/moved_mappings", &["memfd-private"]);
}

#[test]
fn moved_shared_memfd() {
    agree("memory/moved_mappings", &["memfd-shared"]);
}

#[test]
fn moved_private_file_of_a_tmpfs() {
    agree("memory/moved_mappings", &["shm-private"]);
}

#[test]
fn moved_shared_file_of_a_tmpfs() {
    agree("memory/moved_mappings", &["shm-shared"]);
}

#[test]
fn moved_private_file_of_a_disk() {
    agree("memory/moved_mappings", &["disk-private"]);
}

#[test]
fn moved_shared_file_of_a_disk() {
    agree("memory/moved_mappings", &["disk-shared"]);
}

#[test]
fn shared_memfd_that_grows_beyond_the_budget() {
    agree("memory/moved_mappings", &["memfd-grown"]);
}

#[test]
fn moved_shared_anonymous_memory() {
    agree("memory/moved_mappings", &["anonymous-shared"]);
}

#[test]
fn memory_that_moves_and_leaves_its_mapping() {
    agree("memory/moved_mappings", &["dontunmap"]);
}

#[test]
fn several_mappings_that_move_at_once() {
    agree("memory/moved_together", &[]);
}

#[test]
fn moved_huge_pages() {
    tree::need_root();
    let _pages = Setting::set("vm/nr_hugepages", "8");
    agree("memory/moved_mappings", &["huge"]);
}

#[test]
fn advice_on_inheritance() {
    agree("memory/inheritance_advice", &[]);
}

#[test]
fn upper_halves_of_arguments() {
    agree("memory/high_halves", &[]);
}

#[test]
fn a_thread_maps_when_the_first_has_ended() {
    agree("memory/threads_descriptors", &["ended"]);
}

#[test]
fn a_thread_maps_by_its_own_descriptors() {
    agree("memory/threads_descriptors", &["unshared"]);
}

#[test]
fn segments_over_memory_that_is_out() {
    agree("memory/stale_tails", &["shm"]);
}

#[test]
fn read_only_segments_over_memory_that_is_out() {
    agree("memory/stale_tails", &["shm-read-only"]);
}

#[test]
fn moved_segments() {
    agree("memory/stale_tails", &["shm-moved"]);
}

#[test]
fn a_heap_that_shrinks_and_grows() {
    agree("memory/stale_tails", &["brk"]);
}

#[test]
fn a_heap_that_was_put_elsewhere() {
    agree("memory/stale_tails", &["brk-moved"]);
}

#[test]
fn growth_in_place_over_memory_that_is_gone() {
    agree("memory/stale_tails", &["remaps"]);
}

#[test]
fn memory_of_one_read_only_mapping() {
    agree("memory/protections", &["r", "all"]);
}

#[test]
fn memory_that_becomes_read_only_in_parts() {
    agree("memory/protections", &["r", "1"]);
}

#[test]
fn memory_of_which_every_third_part_is_read_only() {
    agree("memory/protections", &["r", "3"]);
}

#[test]
fn memory_that_is_read_and_executed() {
    agree("memory/protections", &["rx", "all"]);
}

#[test]
fn memory_that_is_written_and_executed() {
    agree("memory/protections", &["rwx", "all"]);
}

#[test]
fn memory_that_is_only_executed() {
    agree("memory/protections", &["x", "2"]);
}

#[test]
fn memory_without_access() {
    agree("memory/protections", &["n", "all"]);
}

#[test]
fn code_in_pages_of_every_access() {
    agree("memory/code_generator", &["rwx"]);
}

#[test]
fn code_that_is_switched_to_executable() {
    agree("memory/code_generator", &["rx"]);
}

#[test]
fn code_that_cannot_be_read() {
    agree("memory/code_generator", &["x"]);
}

#[test]
#[ignore = "differs: Linux does not let /proc/PID/mem wait"]
fn the_file_of_ones_own_memory() {
    agree("memory/other_eyes", &["self"]);
}

#[test]
#[ignore = "differs: Linux does not let /proc/PID/mem wait"]
fn the_memory_of_another_process() {
    agree("memory/other_eyes", &["other"]);
}

#[test]
fn buffers_of_calls() {
    agree("memory/other_eyes", &["calls"]);
}

#[test]
fn futexes_in_pages_that_are_out() {
    agree("memory/futexes", &["words"]);
}

#[test]
fn the_first_thread_can_be_joined() {
    agree("memory/futexes", &["first-thread"]);
}

#[test]
fn the_word_of_set_tid_address() {
    agree("memory/futexes", &["tid-address"]);
}

#[test]
fn robust_mutexes_in_pages_that_are_out() {
    agree("memory/futexes", &["robust"]);
}

#[test]
fn a_userfaultfd_of_its_own() {
    agree("memory/own_userfaultfd", &["own"]);
}

#[test]
#[ignore = "differs: Linux refuses strict mode under a filter"]
fn strict_seccomp_under_pressure() {
    agree("memory/own_userfaultfd", &["strict"]);
}

#[test]
fn io_uring_on_pages_that_are_out() {
    agree("memory/io_uring", &[]);
}

#[test]
#[ignore = "differs: a ring may give no advice about memory"]
fn advice_by_io_uring() {
    agree("memory/io_uring", &["advice"]);
}

#[test]
fn a_page_in_every_two_mebibytes() {
    agree_job(&case("memory/sparse", &["20000"]));
}

#[test]
fn a_file_mapped_again_and_again() {
    agree("memory/mapping_loop", &["30", "50"]);
}

#[test]
fn memory_that_does_not_shrink_comes_back_while_mappings_move() {
    agree("memory/incompressible", &["10"]);
}

#[test]
fn a_mapping_goes_to_and_fro_under_pressure() {
    agree("memory/moved_under_pressure", &["10"]);
}

#[test]
fn calls_leave_the_registers_of_their_arguments() {
    agree("memory/registers", &[]);
}

#[test]
fn memory_that_is_freed_in_part() {
    agree("memory/freed_in_part", &[]);
}

#[test]
fn pages_that_a_program_moves_itself() {
    agree("memory/own_moves", &[]);
}

#[test]
fn pages_in_a_pipe() {
    agree("memory/spliced", &[]);
}

#[test]
fn memory_that_may_be_dropped() {
    agree("memory/droppable", &[]);
}
