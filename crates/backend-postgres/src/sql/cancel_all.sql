SELECT @cancel(c.name, c.claim, $3, true) AS code FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS c (name, claim, nr) ORDER BY nr
