//! The library that unwinds the stack after a panic, linked into the program.
//!
//! As the shared library that Rust programs load by default it costs a start of `lock-block` about 100 µs on a virtual machine, half
//! of everything that it does more than flock(1).

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "naming a library to link has no other form; nothing is declared in it")]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

#[cfg(test)]
mod tests {
    #[test]
    fn panics_are_caught() {
        let caught = std::panic::catch_unwind(|| -> u8 { panic!("on purpose") });
        assert!(caught.is_err());
    }
}
