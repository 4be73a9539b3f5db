//! The program: everything of it is in the library beside this file, where the fuzz targets can reach it.

#![forbid(unsafe_code)]

use zeroizing_alloc::ZeroAlloc;

/// Whatever is freed is wiped first: buffers of HTTP, TLS and JSON hold passwords too, and nobody else wipes those.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    pgrotate::main()
}
