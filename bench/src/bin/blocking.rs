//! The least that a wrapper can do on Redis: `SET NX`, the command, and compare-and-delete, on a socket that blocks. No waiting, no
//! renewal, no fencing token, no signals.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitCode};

const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, key, program] = &arguments[..] else { return ExitCode::from(2) };
    match run(address, key, program) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether the lock was free and the command succeeded.
fn run(address: &str, key: &str, program: &str) -> io::Result<bool> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut says = BufReader::new(stream.try_clone()?);
    let owner = std::process::id().to_string();
    if ask(&stream, &mut says, &["SET", key, &owner, "NX", "PX", "15000"])? != "+OK" {
        return Ok(false);
    }
    let status = Command::new(program).status()?;
    let freed = ask(&stream, &mut says, &["EVAL", COMPARE_AND_DELETE, "1", key, &owner])?;
    Ok(freed == ":1" && status.success())
}

/// Sends a command and returns the first line of the answer.
fn ask(mut stream: &TcpStream, says: &mut BufReader<TcpStream>, command: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", command.len());
    for part in command {
        request += &format!("${}\r\n{part}\r\n", part.len());
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    says.read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}
