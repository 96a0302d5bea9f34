-- One line for each thing that can change what a statement does. No oids, names in full (the search path is empty),
-- roles by name, privileges sorted and in full, so that the same schema on another server gives the same lines.
-- Left out: system schemas, our ledger, Alembic's bookkeeping, what belongs to an extension (its version is told), what
-- is written to the log; the catalogued NOT NULL constraints that only PostgreSQL 18 has (attnotnull says the same),
-- and MAINTAIN, which only 17 has; the checks that migrate adds: they are the change's own, and the schema counts as
-- expanded with and without them; owner and privileges of the change's own trigger functions, which nobody calls and
-- which run with the rights of whoever writes: on a copy it is another role that makes them.
WITH RECURSIVE extended AS MATERIALIZED (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), spaces AS MATERIALIZED (
  SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'parallelchange')
    AND oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_namespace'::regclass)
), rels AS MATERIALIZED (
  SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
  WHERE c.relname <> 'alembic_version' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S')
    AND c.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_class'::regclass)
), procs AS MATERIALIZED (
  SELECT p.*, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name
  FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace
  WHERE p.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_proc'::regclass)
), types AS MATERIALIZED (
  -- Without the row types of tables, arrays and multiranges: they come with what is here.
  SELECT t.*, format('%I.%I', n.nspname, t.typname) AS name
  FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace
  WHERE t.typtype <> 'm' AND t.typcategory <> 'A'
    AND (t.typrelid = 0 OR t.typrelid IN (SELECT oid FROM rels WHERE relkind = 'c'))
    AND t.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_type'::regclass)
), owned(kind, name, owner, acl, sort) AS (
  SELECT 'schema', format('%I', nspname), nspowner, nspacl, 'n'::"char" FROM spaces
  UNION ALL
  SELECT 'relation', name, relowner, relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" FROM rels
  WHERE relkind <> 'c'
  UNION ALL
  SELECT 'function', name, proowner, proacl, 'f'::"char" FROM procs WHERE proname !~ '^parallelchange_'
  UNION ALL
  SELECT 'type', name, typowner, typacl, 'T'::"char" FROM types
  UNION ALL
  SELECT 'database', '', datdba, datacl, 'd'::"char" FROM pg_database WHERE datname = current_database()
  UNION ALL
  SELECT 'language', format('%I', lanname), lanowner, lanacl, 'l'::"char" FROM pg_language
  WHERE oid >= 16384 AND oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_language'::regclass)
  UNION ALL
  SELECT 'wrapper', format('%I', fdwname), fdwowner, fdwacl, 'F'::"char" FROM pg_foreign_data_wrapper
  WHERE oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_foreign_data_wrapper'::regclass)
  UNION ALL
  SELECT 'server', format('%I', srvname), srvowner, srvacl, 'S'::"char" FROM pg_foreign_server
), granted(kind, name, owner, acl) AS MATERIALIZED (
  SELECT kind, name, owner, coalesce(acl, acldefault(sort, owner)) FROM owned
  UNION ALL
  SELECT 'column', format('%s.%I', r.name, a.attname), NULL, a.attacl
  FROM rels r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL
  SELECT 'default privileges',
    format('%s in %s', d.defaclobjtype, (SELECT quote_ident(nspname) FROM spaces n WHERE n.oid = d.defaclnamespace)),
    d.defaclrole, d.defaclacl
  FROM pg_default_acl d WHERE d.defaclnamespace = 0 OR d.defaclnamespace IN (SELECT oid FROM spaces)
  UNION ALL
  -- What comes with the server, where somebody has changed who may use it.
  SELECT 'system function', p.oid::regprocedure::text, NULL, p.proacl FROM pg_proc p
  WHERE p.oid < 16384 AND p.proacl IS NOT NULL AND p.proacl IS DISTINCT FROM (
    SELECT initprivs FROM pg_init_privs i WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid)
  UNION ALL
  SELECT 'system relation', c.oid::regclass::text, NULL, c.relacl FROM pg_class c
  WHERE c.oid < 16384 AND c.relacl IS NOT NULL AND c.relacl IS DISTINCT FROM (
    SELECT initprivs FROM pg_init_privs i WHERE i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = 0)
), involved(id) AS (
  -- Whose rights count: owners, those who are granted something, and all who are members of them.
  SELECT id FROM (
    SELECT owner FROM granted UNION SELECT x.grantee FROM granted g, aclexplode(g.acl) x
    UNION SELECT unnest(polroles) FROM pg_policy UNION SELECT evtowner FROM pg_event_trigger
  ) AS named(id) WHERE id <> 0
  UNION SELECT m.member FROM involved i JOIN pg_auth_members m ON m.roleid = i.id
), lines AS (
  SELECT format('access to %s %s: owner %s; %s', g.kind, g.name, pg_get_userbyid(g.owner),
    (SELECT string_agg(told, ', ' ORDER BY told COLLATE "C") FROM (
       SELECT format('%s: %s', CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
         string_agg(DISTINCT x.privilege_type || CASE WHEN x.is_grantable THEN '*' ELSE '' END, ' ')) AS told
       FROM aclexplode(g.acl) x WHERE x.privilege_type <> 'MAINTAIN' GROUP BY x.grantee) AS one)) AS line
  FROM granted g
  UNION ALL
  SELECT format('role %I: superuser %s, bypassrls %s, inherit %s', rolname, rolsuper, rolbypassrls, rolinherit)
  FROM pg_roles WHERE oid IN (SELECT id FROM involved) AND rolname !~ '^pg_'
  UNION ALL
  -- Before 16, whether a member inherits is a property of the member.
  SELECT DISTINCT format('role %I: member of %I, inherits %s', m.rolname, g.rolname,
    coalesce((to_jsonb(a) ->> 'inherit_option')::boolean, m.rolinherit))
  FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid
  WHERE a.member IN (SELECT id FROM involved)
  UNION ALL
  -- As they hold here: a copy has in its database what holds in all of them. A setting may hold a secret.
  SELECT format('setting of %s: %s = %s', coalesce('role ' || quote_ident(rolname), 'all'), split_part(entry, '=', 1),
    CASE WHEN entry ~ '^(search_path|role)=' THEN substr(entry, strpos(entry, '=') + 1) ELSE 'md5 ' || md5(entry) END)
  FROM (
    SELECT DISTINCT ON (s.setrole, split_part(entry, '=', 1)) r.rolname, entry
    FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) entry
    WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
      AND entry !~ '^log_'
    ORDER BY s.setrole, split_part(entry, '=', 1), s.setdatabase = 0
  ) holding
  UNION ALL
  SELECT format('relation %s %s security %s %s persistence %s options %s method %s replica identity %s populated %s',
    name, relkind, relrowsecurity, relforcerowsecurity, relpersistence,
    (SELECT string_agg(o, ',' ORDER BY o COLLATE "C") FROM unnest(reloptions) o),
    (SELECT amname FROM pg_am m WHERE m.oid = relam), relreplident, relispopulated)
  FROM rels WHERE relkind <> 'S'
  UNION ALL
  SELECT format('column %s %s %I %s null %s %s default %s collation %s options %s', r.name,
    row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum), a.attname, format_type(a.atttypid, a.atttypmod),
    NOT a.attnotnull, a.attidentity::text || a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid),
    (SELECT l.oid::regcollation FROM pg_collation l WHERE l.oid = a.attcollation), md5(a.attfdwoptions::text))
  FROM rels r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE r.relkind <> 'S'
  UNION ALL
  SELECT format('sequence %s %s start %s by %s from %s to %s cache %s cycle %s owned by %s', r.name,
    format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle,
    (SELECT string_agg(format('%s.%I', a.attrelid::regclass, a.attname), ',') FROM pg_depend d
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
       AND d.deptype IN ('a', 'i')))
  FROM rels r JOIN pg_sequence q ON q.seqrelid = r.oid
  UNION ALL
  SELECT format('constraint %s %I valid %s %s', r.name, c.conname, c.convalidated, pg_get_constraintdef(c.oid))
  FROM rels r JOIN pg_constraint c ON c.conrelid = r.oid
  WHERE c.contype NOT IN ('n', 't') AND c.conname !~ '^parallelchange_'
  UNION ALL
  SELECT format('index %s valid %s ready %s live %s immediate %s replica identity %s', pg_get_indexdef(i.indexrelid),
    i.indisvalid, i.indisready, i.indislive, i.indimmediate, i.indisreplident)
  FROM rels r JOIN pg_index i ON i.indrelid = r.oid
  UNION ALL
  SELECT format('trigger %s enabled %s body %s', pg_get_triggerdef(t.oid), t.tgenabled, md5(p.prosrc))
  FROM rels r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal JOIN pg_proc p ON p.oid = t.tgfoid
  UNION ALL
  -- The server's own triggers of foreign keys and the like, where somebody has switched them.
  SELECT format('constraint %s %I: its trigger %s on %s is enabled %s', c.conrelid::regclass, c.conname, t.tgtype,
    r.name, t.tgenabled)
  FROM rels r JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgisinternal AND t.tgenabled <> 'O'
  JOIN pg_constraint c ON c.oid = t.tgconstraint
  UNION ALL
  SELECT format('event trigger %I on %s enabled %s for %s runs %s owner %s body %s', e.evtname, e.evtevent,
    e.evtenabled, e.evttags, e.evtfoid::regprocedure, pg_get_userbyid(e.evtowner), md5(p.prosrc))
  FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
  WHERE e.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_event_trigger'::regclass)
  UNION ALL
  SELECT format('view %s %s', name, pg_get_viewdef(oid)) FROM rels WHERE relkind IN ('v', 'm')
  UNION ALL
  SELECT format('rule %s enabled %s', pg_get_ruledef(w.oid), w.ev_enabled)
  FROM rels r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename <> '_RETURN'
  UNION ALL
  SELECT format('policy %s %I %s permissive %s to %s using %s check %s', r.name, p.polname, p.polcmd, p.polpermissive,
    (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ','
       ORDER BY pg_get_userbyid(o) COLLATE "C") FROM unnest(p.polroles) o),
    pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  FROM rels r JOIN pg_policy p ON p.polrelid = r.oid
  UNION ALL
  SELECT format('inherits %s %s from %s', r.name, i.inhseqno, i.inhparent::regclass)
  FROM rels r JOIN pg_inherits i ON i.inhrelid = r.oid
  UNION ALL
  SELECT format('partition %s by %s bound %s', name, CASE relkind WHEN 'p' THEN pg_get_partkeydef(oid) END,
    pg_get_expr(relpartbound, oid))
  FROM rels WHERE relkind = 'p' OR relispartition
  UNION ALL
  SELECT format('function %s md5 %s', name, md5(pg_get_functiondef(oid))) FROM procs WHERE prokind <> 'a'
  UNION ALL
  SELECT format('aggregate %s %s %s %s', p.name, p.proparallel, pg_get_function_result(p.oid), concat_ws(' ', a.aggkind,
    a.aggnumdirectargs, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
    a.aggminvtransfn, a.aggmfinalfn, a.aggfinalextra, a.aggmfinalextra, a.aggfinalmodify, a.aggmfinalmodify,
    a.aggsortop::regoperator, a.aggtranstype::regtype, a.aggmtranstype::regtype, 'start', quote_nullable(a.agginitval),
    quote_nullable(a.aggminitval)))
  FROM procs p JOIN pg_aggregate a ON a.aggfnoid = p.oid
  UNION ALL
  SELECT format('enum %s %s', t.name, string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder))
  FROM types t JOIN pg_enum e ON e.enumtypid = t.oid GROUP BY t.name
  UNION ALL
  SELECT format('domain %s %s null %s default %s collation %s %s', t.name, format_type(t.typbasetype, t.typtypmod),
    NOT t.typnotnull, t.typdefault, t.typcollation::regcollation,
    (SELECT string_agg(format('%I %s', c.conname, pg_get_constraintdef(c.oid)), '; ' ORDER BY c.conname COLLATE "C")
     FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c'))
  FROM types t WHERE t.typtype = 'd'
  UNION ALL
  SELECT format('range %s of %s collation %s class %s canonical %s difference %s', t.name, g.rngsubtype::regtype,
    g.rngcollation::regcollation, (SELECT format('%s.%s', opcnamespace::regnamespace, opcname) FROM pg_opclass o
    WHERE o.oid = g.rngsubopc), g.rngcanonical, g.rngsubdiff)
  FROM types t JOIN pg_range g ON g.rngtypid = t.oid
  UNION ALL
  SELECT format('type %s %s defined %s length %s in %s out %s default %s', t.name, t.typtype, t.typisdefined, t.typlen,
    t.typinput, t.typoutput, t.typdefault) FROM types t WHERE t.typtype = 'b'
  UNION ALL
  SELECT format('extension %I %s in %s', extname, extversion, extnamespace::regnamespace) FROM pg_extension
  UNION ALL
  SELECT format('cast from %s to %s by %s context %s method %s', castsource::regtype, casttarget::regtype,
    castfunc::regprocedure, castcontext, castmethod)
  FROM pg_cast WHERE oid >= 16384 AND oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_cast'::regclass)
  UNION ALL
  SELECT format('operator %s gives %s by %s commutes %s negates %s selects %s joins %s merges %s hashes %s',
    o.oid::regoperator, o.oprresult::regtype, o.oprcode, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprrest,
    o.oprjoin, o.oprcanmerge, o.oprcanhash)
  FROM pg_operator o JOIN spaces n ON n.oid = o.oprnamespace
  WHERE o.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_operator'::regclass)
  UNION ALL
  SELECT format('operator class %I.%I for %s using %s default %s keeps %s', n.nspname, o.opcname, o.opcintype::regtype,
    (SELECT amname FROM pg_am m WHERE m.oid = o.opcmethod), o.opcdefault, o.opckeytype::regtype)
  FROM pg_opclass o JOIN spaces n ON n.oid = o.opcnamespace
  WHERE o.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_opclass'::regclass)
  UNION ALL
  SELECT format('operator family %I.%I using %s: %s; %s', n.nspname, f.opfname,
    (SELECT amname FROM pg_am m WHERE m.oid = f.opfmethod),
    (SELECT string_agg(told, ', ' ORDER BY told COLLATE "C") FROM (SELECT format('%s %s %s', amopstrategy,
       amopopr::regoperator, amoppurpose) AS told FROM pg_amop a WHERE a.amopfamily = f.oid) AS one),
    (SELECT string_agg(told, ', ' ORDER BY told COLLATE "C") FROM (SELECT format('%s %s', amprocnum,
       amproc::regprocedure) AS told FROM pg_amproc a WHERE a.amprocfamily = f.oid) AS one))
  FROM pg_opfamily f JOIN spaces n ON n.oid = f.opfnamespace
  WHERE f.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_opfamily'::regclass)
  UNION ALL
  -- Without its version, which is that of the machine's own library and another on every one.
  SELECT format('collation %I.%I %s', n.nspname, l.collname,
    (SELECT string_agg(format('%s %s', replace(key, 'colliculocale', 'colllocale'), value), ', ' ORDER BY key COLLATE "C")
     FROM jsonb_each_text(to_jsonb(l)) WHERE value IS NOT NULL
       AND key NOT IN ('oid', 'collname', 'collnamespace', 'collowner', 'collversion')))
  FROM pg_collation l JOIN spaces n ON n.oid = l.collnamespace
  WHERE l.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_collation'::regclass)
  UNION ALL
  SELECT format('text search configuration %I.%I by %s: %s', n.nspname, c.cfgname, p.prsname,
    (SELECT string_agg(format('%s %s %s', m.maptokentype, m.mapseqno, m.mapdict::regdictionary), ', '
       ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = c.oid))
  FROM pg_ts_config c JOIN spaces n ON n.oid = c.cfgnamespace JOIN pg_ts_parser p ON p.oid = c.cfgparser
  WHERE c.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_ts_config'::regclass)
  UNION ALL
  SELECT format('text search dictionary %I.%I of %s with %s', n.nspname, d.dictname, t.tmplname, d.dictinitoption)
  FROM pg_ts_dict d JOIN spaces n ON n.oid = d.dictnamespace JOIN pg_ts_template t ON t.oid = d.dicttemplate
  WHERE d.oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_ts_dict'::regclass)
  UNION ALL
  SELECT format('publication %I all tables %s insert %s update %s delete %s truncate %s by root %s', pubname,
    puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot) FROM pg_publication
  UNION ALL
  SELECT format('published by %I %I.%I %s %s', p.pubname, p.schemaname, p.tablename, to_jsonb(p) ->> 'attnames',
    to_jsonb(p) ->> 'rowfilter')
  FROM pg_publication_tables p WHERE p.schemaname <> 'parallelchange' AND p.tablename <> 'alembic_version'
  UNION ALL
  -- Options may hold a secret; those of a user mapping are not for everybody to see, and so would be told in part.
  SELECT format('wrapper %I by %s checked by %s options %s', fdwname, fdwhandler::regproc, fdwvalidator::regproc,
    md5(fdwoptions::text)) FROM pg_foreign_data_wrapper
  WHERE oid NOT IN (SELECT objid FROM extended WHERE classid = 'pg_foreign_data_wrapper'::regclass)
  UNION ALL
  SELECT format('server %I %s %s of %I options %s', s.srvname, s.srvtype, s.srvversion, w.fdwname,
    md5(s.srvoptions::text))
  FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
  UNION ALL
  SELECT format('user mapping %I on %I', usename, srvname) FROM pg_user_mappings
  UNION ALL
  SELECT format('foreign table %s on %I options %s', r.name, s.srvname, md5(f.ftoptions::text))
  FROM rels r JOIN pg_foreign_table f ON f.ftrelid = r.oid JOIN pg_foreign_server s ON s.oid = f.ftserver
)
SELECT line FROM lines
