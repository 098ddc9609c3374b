//! Measures locks against the goals of the project and against what people would use instead.
//!
//! All results are ratios of two sides that ran interleaved, the median of several rounds: the machine, the file system and
//! whoever else uses them are in both. Run it with `cargo xtask bench`, which builds the tools first.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};

mod between;
mod child;
mod cores;
mod counting;
mod hand_on;
mod over_etcd;
mod over_postgres;
mod over_redis;
mod processes;
mod queue;
mod rounds;
mod scripts;
mod table;
mod uncontended;

use between::OnServer;
use rounds::Effort;
use table::Table;

#[derive(Parser)]
struct Args {
    /// Short rounds: shows that everything runs, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Where lock-block and lock-abort are
    #[arg(long, value_name = "DIR", default_value = "../target/release")]
    tools: PathBuf,
    /// Where lock-block with Redis is
    #[arg(long, value_name = "DIR")]
    redis_tools: Option<PathBuf>,
    /// Where lock-block with PostgreSQL is
    #[arg(long, value_name = "DIR")]
    postgres_tools: Option<PathBuf>,
    /// Where lock-block with etcd is
    #[arg(long, value_name = "DIR")]
    etcd_tools: Option<PathBuf>,
    /// Measure this store alone
    #[arg(long, value_enum)]
    only: Option<Server>,
    /// Measure the commands alone
    #[arg(long)]
    commands_only: bool,
    /// Where to write the table, as Markdown
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The stores that are servers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    Redis,
    Postgres,
    Etcd,
}

#[derive(Subcommand)]
enum Role {
    /// One of several processes that contend for a lock; started by the measurement itself
    #[command(hide = true)]
    Contender(processes::Contender),
    /// One of several processes that contend for locks on a server; started by the measurement itself
    #[command(hide = true)]
    Waiters(between::Contender),
    /// One of several processes with many tasks that wait for locks on a server; started by the measurement itself
    #[command(hide = true)]
    Crowd(between::Crowd),
}

fn main() -> Result<()> {
    let args = Args::parse();
    match &args.role {
        Some(Role::Contender(contender)) => return contender.run(),
        Some(Role::Waiters(contender)) => return contender.run(),
        Some(Role::Crowd(crowd)) => return crowd.run(),
        None => {}
    }
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let found =
        |tools: &PathBuf| tools.canonicalize().with_context(|| format!("no tools in {}", tools.display()));
    let tools = found(&args.tools)?;
    let servers = [
        (Server::Redis, over_redis::MEASURED, &args.redis_tools),
        (Server::Postgres, over_postgres::MEASURED, &args.postgres_tools),
        (Server::Etcd, over_etcd::MEASURED, &args.etcd_tools),
    ];
    let wanted = servers.into_iter().filter(|(server, ..)| args.only.is_none_or(|only| only == *server));
    let servers = wanted
        .map(|(_, measured, tools)| Ok((measured, tools.as_ref().map(found).transpose()?)))
        .collect::<Result<Vec<(OnServer, Option<PathBuf>)>>>()?;
    for (measured, _) in &servers {
        (measured.check)()?;
    }
    let local = args.only.is_none();
    let mut table = Table::default();
    for cores in cores::choices()? {
        eprintln!("on {cores}");
        cores.use_only_these()?;
        table.on(cores.to_string());
        if local && !args.commands_only {
            uncontended::measure(effort, &mut table)?;
            hand_on::measure(effort, cores.count(), &mut table)?;
            processes::measure(effort, &mut table)?;
        }
        if local {
            scripts::measure(effort, &tools, &mut table)?;
            queue::measure(effort, &tools, &mut table)?;
        }
        for (measured, tools) in &servers {
            if !args.commands_only {
                (measured.measure)(effort, &cores, &mut table)?;
            }
            if let Some(tools) = tools {
                (measured.commands)(effort, &cores, tools, &mut table)?;
            }
        }
    }
    for (measured, _) in servers.iter().filter(|_| !args.commands_only) {
        (measured.footprint)(effort, &mut table)?;
    }
    if local {
        scripts::footprint(&tools, &mut table)?;
    }
    let text = table.to_string();
    println!("{text}");
    if let Some(path) = &args.table {
        fs::write(path, &text).with_context(|| format!("can't write {}", path.display()))?;
    }
    if table.overlaps() > 0 {
        bail!("{} times two held the same lock", table.overlaps());
    }
    Ok(())
}
