//! One heap for all threads.

/// Lets all threads allocate from one heap; what `MALLOC_ARENA_MAX` says comes first.
///
/// glibc gives each thread a heap of its own, up to eight for each core. Buffers wander from thread to
/// thread here, and what one heap has freed no other can use: a backup's peak memory was a third
/// higher, and grew with the number of entries. Small requests are served from a cache of each
/// thread in either case.
///
/// To be called before any thread is started. Other C libraries have one heap anyway.
pub fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // Refused, it costs memory and nothing else.
        let _is_taken = limit_heaps(1);
    }
}

/// Sets how many heaps there may be; false when the C library refuses.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "a setting of the C library's allocator that no crate wraps"
)]
fn limit_heaps(heaps: i32) -> bool {
    // SAFETY: `mallopt` takes two plain numbers, reads and writes no memory of ours, and locks
    // the allocator itself, so that it may be called at any time from any thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) == 1 }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::{Arc, Barrier};

    use super::share;

    /// The memory that the kernel reserves for each heap but the first starts at a multiple of it.
    const HEAP_BYTES: usize = 64 << 20;
    const THREADS: usize = 12;

    /// Counts the heaps from which threads that live side by side get their memory.
    fn heaps() -> usize {
        let barrier = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                std::thread::spawn(move || {
                    // More than a thread's cache serves, less than is mapped by itself.
                    let bytes = vec![1_u8; 8 << 10];
                    barrier.wait();
                    bytes.as_ptr().addr() / HEAP_BYTES
                })
            })
            .collect();
        let places: BTreeSet<usize> = threads.into_iter().map(|it| it.join().unwrap()).collect();
        places.len()
    }

    /// Prints what [`heaps`] counts in a process of its own, before and after [`share`]; run by the test below.
    #[test]
    #[ignore = "the half of a test that needs a process of its own"]
    fn count_heaps() {
        if std::env::var_os("SHARED").is_some() {
            share();
        }
        println!("heaps={}", heaps());
    }

    #[test]
    fn all_threads_share_one_heap() {
        let count = |shared: bool| -> usize {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args([
                    "--ignored",
                    "--exact",
                    "--nocapture",
                    "heap::tests::count_heaps",
                ])
                .env_remove("MALLOC_ARENA_MAX");
            if shared {
                command.env("SHARED", "1");
            }
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let count = text.split("heaps=").nth(1).unwrap();
            count.lines().next().unwrap().parse().unwrap()
        };
        // The harness's own thread may have its heap before the limit is set.
        assert!(count(true) <= 2);
        assert!(count(false) > 2);
    }
}
