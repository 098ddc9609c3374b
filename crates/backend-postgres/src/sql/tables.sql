-- Version 1. All times are µs since 1970 on this server's clock, lengths of time are µs.

CREATE TABLE @meta (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  version integer NOT NULL,
  -- Programs of an earlier version than this don't understand the tables any more.
  oldest integer NOT NULL,
  max_ttl bigint NOT NULL,
  durable boolean NOT NULL
);

-- Dies together with the grants. Anything granted under another id, or under none, may be forgotten.
CREATE @UNLOGGED TABLE @epoch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id bigint NOT NULL,
  no_grants_before bigint NOT NULL,
  -- Of the server that wrote it: another one may have missed the last grants.
  started timestamptz NOT NULL,
  -- The transaction that wrote it: a restored copy has another xmin.
  written_by xid NOT NULL
);

CREATE @UNLOGGED TABLE @lock (
  name text COLLATE "C" PRIMARY KEY,
  -- The last fencing token, and the epoch in which it was given.
  counter bigint NOT NULL DEFAULT 0,
  epoch bigint NOT NULL DEFAULT 0,
  -- Free, nobody waits and nothing else is to be looked at.
  idle boolean NOT NULL DEFAULT false,
  queued boolean NOT NULL DEFAULT false,
  scheduled boolean NOT NULL DEFAULT false,
  -- - free, B free since it was broken, X held alone, S shared, P permits
  mode "char" NOT NULL DEFAULT '-',
  lim bigint NOT NULL DEFAULT 0,
  used bigint NOT NULL DEFAULT 0,
  -- Who holds it alone.
  claim uuid,
  tokens integer,
  ends bigint,
  ttl bigint,
  instance uuid,
  asked boolean NOT NULL DEFAULT false,
  since bigint NOT NULL DEFAULT 0,
  holder text,
  value bytea,
  -- From whom it was last taken by force.
  broken uuid[]
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Those who hold a lock with others.
CREATE @UNLOGGED TABLE @hold (
  name text COLLATE "C" NOT NULL,
  claim uuid NOT NULL,
  weight bigint NOT NULL,
  last bigint NOT NULL,
  tokens integer NOT NULL,
  ends bigint NOT NULL,
  ttl bigint NOT NULL,
  instance uuid NOT NULL,
  asked boolean NOT NULL DEFAULT false,
  since bigint NOT NULL,
  holder text NOT NULL,
  value bytea,
  PRIMARY KEY (name, claim)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Those who wait, first come first.
CREATE @UNLOGGED TABLE @wait (
  name text COLLATE "C" NOT NULL,
  ticket bigint GENERATED ALWAYS AS IDENTITY,
  claim uuid NOT NULL,
  instance uuid NOT NULL,
  mode "char" NOT NULL,
  weight bigint NOT NULL,
  lim bigint NOT NULL,
  ttl bigint NOT NULL,
  gone_at bigint NOT NULL,
  min_hold bigint NOT NULL,
  once_per bigint NOT NULL,
  holder text NOT NULL,
  value bytea,
  PRIMARY KEY (name, ticket),
  UNIQUE (name, claim)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- What outlives every holder and a crash of the server.
CREATE TABLE @schedule (
  name text COLLATE "C" PRIMARY KEY,
  not_before bigint NOT NULL DEFAULT 0,
  -- The claim whose grant set that.
  written_by uuid,
  -- When the last completed hold was granted.
  completed bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
