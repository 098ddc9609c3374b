//! The tables and functions: their names, their SQL, and how they come into a database.

use std::sync::Arc;

use crate::options::PostgresOptions;

/// The version of the tables that this program makes and uses. Functions have it in their names, so that programs of two versions can use one
/// schema.
pub(crate) const VERSION: i32 = 1;

/// All SQL of one schema and prefix.
#[derive(Debug)]
pub(crate) struct Sql {
    schema: String,
    prefix: String,
    seed: i64,
    durable: bool,
    /// What makes all tables and functions, and an epoch without grace: nobody can rely on a lock yet.
    everything: String,
    pub(crate) acquire_free: Arc<str>,
    pub(crate) queue_up: Arc<str>,
    pub(crate) acquire: Arc<str>,
    pub(crate) acquire_all: Arc<str>,
    pub(crate) together: Arc<str>,
    pub(crate) release_free: Arc<str>,
    pub(crate) hand_on: Arc<str>,
    pub(crate) release_all: Arc<str>,
    pub(crate) release: Arc<str>,
    pub(crate) cancel: Arc<str>,
    pub(crate) cancel_all: Arc<str>,
    pub(crate) renew_all: Arc<str>,
    pub(crate) renew: Arc<str>,
    pub(crate) remaining: Arc<str>,
    pub(crate) downgrade: Arc<str>,
    pub(crate) publish: Arc<str>,
    pub(crate) leader: Arc<str>,
    pub(crate) state: Arc<str>,
    pub(crate) list: Arc<str>,
    pub(crate) break_lock: Arc<str>,
    pub(crate) revoke: Arc<str>,
    pub(crate) collect: Arc<str>,
    pub(crate) value_channel: Arc<str>,
    pub(crate) verify: Arc<str>,
    pub(crate) share: Arc<str>,
}

impl Sql {
    /// Each as `edit` leaves it.
    pub(crate) fn new(options: &PostgresOptions, edit: impl Fn(&str) -> String) -> Self {
        let sql = Names::of(options);
        let text = |template: &str| Arc::from(sql.fill(&edit(template)));
        Self {
            schema: options.schema.clone(),
            prefix: options.prefix.clone(),
            seed: sql.seed,
            durable: options.durable,
            everything: sql.fill(&edit(&everything(options))),
            acquire_free: text(include_str!("sql/acquire_free.sql")),
            queue_up: text(include_str!("sql/queue_up.sql")),
            acquire: text("SELECT * FROM @acquire($1, $2, $3, $4, 'X', 1, 0, $7, 0, 0, $5, NULL, $6, false)"),
            acquire_all: text(include_str!("sql/acquire_all.sql")),
            together: text("SELECT * FROM @together($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"),
            release_free: text(include_str!("sql/release_free.sql")),
            hand_on: text(include_str!("sql/hand_on.sql")),
            release_all: text(include_str!("sql/release_all.sql")),
            release: text("SELECT @release($1, $2, $3, $4, $5, $6, false) AS code"),
            cancel: text("SELECT @cancel($1, $2, $3, false) AS code"),
            cancel_all: text(include_str!("sql/cancel_all.sql")),
            renew_all: text(include_str!("sql/renew_all.sql")),
            renew: text("SELECT * FROM @renew($1, $2, $3, $4, $5)"),
            remaining: text(include_str!("sql/remaining.sql")),
            downgrade: text("SELECT @downgrade($1, $2, $3, $4, $5) AS code"),
            publish: text("SELECT @publish($1, $2, $3, $4, $5) AS code"),
            leader: text(include_str!("sql/leader.sql")),
            state: text(include_str!("sql/state.sql")),
            list: text(include_str!("sql/list.sql")),
            break_lock: text("SELECT @break($1, $2, $3) AS n"),
            revoke: text("SELECT @revoke($1, $2) AS n"),
            collect: text("SELECT @collect($1)"),
            value_channel: text("SELECT 'locks_v_' || pg_catalog.hashtextextended($1, @SEED) AS channel"),
            share: text(include_str!("sql/share.sql")),
            verify: text(include_str!("sql/verify.sql")),
        }
    }

    /// What the server is asked first: its version, whether it is a replica, whether it took our settings, and whether the tables are there.
    pub(crate) fn look(&self) -> String {
        self.fill(
            "SELECT pg_catalog.current_setting('server_version_num')::integer AS version, pg_catalog.pg_is_in_recovery() AS replica, \
             pg_catalog.current_setting('lock_timeout') = '200ms' AS direct, pg_catalog.to_regclass('@meta') IS NOT NULL AS there",
        )
    }

    /// Opens the present epoch. `means`: grace, off or new.
    pub(crate) fn open_epoch(&self, fresh: i64, means: &str) -> String {
        self.fill(&format!(
            "SELECT m.version, m.oldest, m.max_ttl, m.durable, e.id, e.no_grants_before FROM @meta AS m, \
             @open_epoch({fresh}, '{means}') AS e"
        ))
    }

    /// Which tables there are, for a program that may be too old for them.
    pub(crate) fn version(&self) -> String {
        self.fill("SELECT version, oldest, max_ttl, durable FROM @meta")
    }

    /// Makes everything, in one transaction, unless somebody else was quicker.
    pub(crate) fn set_up(&self) -> String {
        self.fill(&format!(
            "BEGIN;\nSELECT pg_catalog.pg_advisory_xact_lock(@SEED);\n\
             DO $do$ BEGIN IF pg_catalog.to_regclass('@meta') IS NULL THEN\n\
             IF pg_catalog.to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA \"{schema}\"; END IF;\n\
             {everything}\nEND IF; END $do$;\nCOMMIT",
            schema = self.schema,
            everything = self.everything,
        ))
    }

    /// The same as a script for people, without what makes it safe to race for.
    pub(crate) fn script(&self) -> String {
        self.fill(&format!(
            "BEGIN;\nCREATE SCHEMA IF NOT EXISTS \"{}\";\n\n{}\nCOMMIT;\n",
            self.schema, self.everything
        ))
    }

    fn fill(&self, template: &str) -> String {
        Names { schema: &self.schema, prefix: &self.prefix, seed: self.seed, durable: self.durable }
            .fill(template)
    }
}

fn everything(options: &PostgresOptions) -> String {
    format!(
        "{tables}\n{parts}\n{steps}\nINSERT INTO @meta VALUES (true, {VERSION}, {VERSION}, {max_ttl}, {durable});\n\
         INSERT INTO @epoch VALUES (true, {epoch}, 0, pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_current_xact_id()::xid);\n",
        tables = include_str!("sql/tables.sql"),
        parts = include_str!("sql/parts.sql"),
        steps = include_str!("sql/steps.sql"),
        max_ttl = options.max_ttl.as_micros(),
        durable = options.durable,
        epoch = fresh_epoch(),
    )
}

/// The id of a new epoch: random and never 0, under which nothing was ever granted.
pub(crate) fn fresh_epoch() -> i64 {
    fastrand::i64(1..)
}

/// What the templates call by an `@`.
struct Names<'a> {
    schema: &'a str,
    prefix: &'a str,
    seed: i64,
    durable: bool,
}

/// Larger tokens than this begin no block.
const LAST_TOKEN: i64 = (1 << 53) - 65;

impl<'a> Names<'a> {
    fn of(options: &'a PostgresOptions) -> Self {
        // FNV-1a. Advisory locks are of the whole database: those of other schemas, and of other programs, are to be others.
        let hash = [&options.schema, "\n", &options.prefix]
            .iter()
            .flat_map(|text| text.bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let seed = i64::try_from(hash >> 2).unwrap_or_default();
        Self { schema: &options.schema, prefix: &options.prefix, seed, durable: options.durable }
    }

    fn fill(&self, template: &str) -> String {
        let mut text = String::with_capacity(template.len() * 2);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('@') {
            text.push_str(before);
            let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != '_').unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            match name {
                "CLOCK" => text.push_str(
                    "(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint",
                ),
                "SEED" => text.push_str(&self.seed.to_string()),
                "LAST_TOKEN" => text.push_str(&LAST_TOKEN.to_string()),
                "UNLOGGED" => text.push_str(if self.durable { "" } else { "UNLOGGED" }),
                "meta" | "epoch" | "lock" | "hold" | "wait" | "schedule" => {
                    text.push_str(&format!("\"{}\".\"{}{name}\"", self.schema, self.prefix));
                }
                _ => text.push_str(&format!("\"{}\".\"{}{name}_{VERSION}\"", self.schema, self.prefix)),
            }
            rest = after;
        }
        text.push_str(rest);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let options = PostgresOptions::default().schema("s").prefix("p_");
        let names = Names::of(&options);
        assert_eq!(
            names.fill("SELECT @acquire(a) FROM @lock, @hold; @UNLOGGED"),
            "SELECT \"s\".\"p_acquire_1\"(a) FROM \"s\".\"p_lock\", \"s\".\"p_hold\"; UNLOGGED"
        );
        assert!(names.seed > 0);
        assert_ne!(names.seed, Names::of(&PostgresOptions::default()).seed);
    }

    #[test]
    fn the_script_names_everything_and_leaves_nothing_open() {
        let script = Sql::new(&PostgresOptions::default(), str::to_owned).script();
        assert!(!script.contains('@'), "{script}");
        assert!(script.contains("CREATE UNLOGGED TABLE \"locks\".\"lock\""));
        let durable = Sql::new(&PostgresOptions::default().durable(true), str::to_owned).script();
        assert!(!durable.contains("UNLOGGED"));
    }
}
