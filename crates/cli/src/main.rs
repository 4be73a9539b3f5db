//! The program: everything of it is in the library beside this file, where the fuzz targets can reach it.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pgrotate::main()
}
