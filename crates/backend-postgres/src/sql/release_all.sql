SELECT @release(g.name, g.claim, g.last, g.tokens, false, $5, true) AS code
  FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::integer[]) WITH ORDINALITY AS g (name, claim, last, tokens, nr) ORDER BY nr
