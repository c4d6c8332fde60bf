BEGIN TRANSACTION;
CREATE TABLE firings (
    session INTEGER NOT NULL REFERENCES sessions,
    number INTEGER NOT NULL,
    trigger TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    at INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    source TEXT NOT NULL,
    key TEXT,
    fingerprint TEXT,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
INSERT INTO "firings" VALUES(1,1,'first','{"responses":{"age":36}}',1704067200002000,0,'','page 1','4f93be2c95af251dc5c7077ac1d22d7099944af55918bfa352d1027faea0a2f4');
INSERT INTO "firings" VALUES(1,2,'complete','{}',1704067200003000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,3,'t_subject','{"id":7}',1704067200006000,1,'t_subject#0',NULL,NULL);
INSERT INTO "firings" VALUES(1,4,'page','{"page":0}',1704067200007000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,5,'page','{"page":1}',1704067200008000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,6,'page','{"page":2}',1704067200009000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,7,'page','{"page":3}',1704067200010000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,8,'page','{"page":4}',1704067200011000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,9,'page','{"page":5}',1704067200012000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,10,'page','{"page":6}',1704067200013000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,11,'page','{"page":7}',1704067200014000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(1,12,'t_page','{"page":0}',1704067200016000,2,'t_page#0',NULL,NULL);
INSERT INTO "firings" VALUES(1,13,'t_page:failed','{"instance":"t_page#1","error":{"type":"ValueError","message":"page 1"},"exhausted":false,"lost":false}',1704067200019000,2,'t_page#1',NULL,NULL);
INSERT INTO "firings" VALUES(1,14,'t_page:failed','{"instance":"t_page#2","error":{"type":"ValueError","message":"page 2"},"exhausted":false,"lost":false}',1704067200022000,2,'t_page#2',NULL,NULL);
INSERT INTO "firings" VALUES(1,15,'t_page:failed','{"instance":"t_page#3","error":{"type":"ValueError","message":"page 3"},"exhausted":false,"lost":false}',1704067200025000,2,'t_page#3',NULL,NULL);
INSERT INTO "firings" VALUES(1,16,'t_page','{"page":3}',1704067200027000,2,'t_page#3',NULL,NULL);
INSERT INTO "firings" VALUES(2,1,'first','{"n":1}',1704067200041000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(3,1,'page','{"text":"''\u0000💩"}',1704067200042000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(4,1,'embedded','{}',1704067200043000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(4,2,'first','{}',1704067200044000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(5,1,'go','{}',1704067200047000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(5,2,'t_one','{"n":1}',1704067200049000,1,'t_one#0',NULL,NULL);
INSERT INTO "firings" VALUES(5,3,'over','{}',1704067200049000,0,'',NULL,NULL);
INSERT INTO "firings" VALUES(6,1,'page','{}',1704067200050000,0,'','k','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a');
CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions,
    task TEXT NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    crash_budget INTEGER NOT NULL DEFAULT 3,
    given_back INTEGER NOT NULL DEFAULT 0,
    run_at INTEGER NOT NULL DEFAULT 0,
    dispatch_after INTEGER NOT NULL DEFAULT 0,
    handovers INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    owner TEXT NOT NULL DEFAULT '',
    parent INTEGER,
    root INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    cascade_depth INTEGER NOT NULL,
    taken TEXT NOT NULL,
    vetoes TEXT NOT NULL,
    kwargs TEXT,
    result INTEGER,
    error TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    history TEXT NOT NULL,
    log_count INTEGER NOT NULL DEFAULT 0,
    log_level INTEGER NOT NULL DEFAULT 0,
    log_unresolved INTEGER NOT NULL DEFAULT 0,
    log_counts TEXT NOT NULL DEFAULT '{}',
    log_dropped INTEGER NOT NULL DEFAULT 0,
    log_resolved INTEGER NOT NULL DEFAULT 0,
    log_chosen TEXT NOT NULL DEFAULT '[]',
    log_audit TEXT NOT NULL DEFAULT '[]'
);
INSERT INTO "instances" VALUES(1,1,'t_subject',0,'finished',1704067200002000,1704067200033000,1,1,0,3,0,1704067200003000,1704067230003000,0,NULL,'',NULL,0,0,0,0,'{"first":1,"complete":2}','[]',NULL,3,NULL,'{}','1704067200002000 unstarted
1704067200003000 scheduled
1704067200004000 running claimed by worker
1704067200006000 finished
',2,40,0,'{"20":1,"40":1}',0,2,'[]','[{"outcome":"resolved","by":"ada","note":"seen","through":2,"at":1704067200033000,"level":40}]');
INSERT INTO "instances" VALUES(2,1,'t_browser',0,'scheduled',1704067200002000,1704067200002000,0,0,0,3,0,1704067200002000,1704067230002000,0,NULL,'',NULL,0,0,0,0,'{"first":1}','[]',NULL,NULL,NULL,'{}','1704067200002000 unstarted
1704067200002000 scheduled
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(3,1,'t_page',0,'finished',1704067200006000,1704067200016000,1,1,0,3,0,1704067200007000,1704067230007000,0,NULL,'',NULL,0,0,0,1,'{"t_subject":3,"page":4}','[]',NULL,12,NULL,'{}','1704067200006000 unstarted
1704067200007000 scheduled
1704067200015000 running claimed by worker
1704067200016000 finished
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(4,1,'t_page',1,'failed',1704067200008000,1704067200037000,1,1,0,3,0,1704067200008000,1704067230008000,0,NULL,'',NULL,1,0,0,1,'{"page":5,"t_subject":3}','[]',NULL,NULL,'{"type":"ValueError","message":"page 1"}','{"ticket":4}','1704067200008000 unstarted
1704067200008000 scheduled
1704067200017000 running claimed by worker
1704067200019000 failed
',2,40,30,'{"40":1,"30":1}',0,0,'[1]','[{"outcome":"resolved","by":"bob","records":[1],"at":1704067200034000,"level":40}]');
INSERT INTO "instances" VALUES(5,1,'t_page',2,'replayed',1704067200009000,1704067200026000,1,1,0,3,0,1704067200009000,1704067230009000,0,NULL,'',NULL,2,0,0,1,'{"page":6,"t_subject":3}','[]',NULL,NULL,'{"type":"ValueError","message":"page 2"}','{"by":"ada"}','1704067200009000 unstarted
1704067200009000 scheduled
1704067200020000 running claimed by worker
1704067200022000 failed
1704067200026000 replayed
',2,40,40,'{"40":1,"30":1}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(6,1,'t_page',3,'skipped',1704067200010000,1704067200036000,1,1,0,3,0,1704067200010000,1704067230010000,0,NULL,'',NULL,3,0,0,1,'{"page":7,"t_subject":3}','[]',NULL,16,'{"type":"ValueError","message":"page 3"}','{}','1704067200010000 unstarted
1704067200010000 scheduled
1704067200023000 running claimed by worker
1704067200025000 failed
1704067200027000 skipped
',2,40,40,'{"40":1,"30":1}',0,0,'[]','[{"outcome":"resolved","by":"bob","through":2,"at":1704067200035000,"level":40},{"outcome":"reopened","by":"ada","at":1704067200036000,"level":0}]');
INSERT INTO "instances" VALUES(7,1,'t_page',4,'running',1704067200011000,1704067200028000,1,1,0,3,0,1704067200011000,1704067230011000,0,1704067260028000,'worker',NULL,4,0,0,1,'{"page":8,"t_subject":3}','[]',NULL,NULL,NULL,'{}','1704067200011000 unstarted
1704067200011000 scheduled
1704067200028000 running claimed by worker
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(8,1,'t_page',5,'running',1704067200012000,1704067200030000,1,1,0,3,0,1704067200012000,1704067230012000,0,1704067260029000,'another',NULL,5,0,0,1,'{"page":9,"t_subject":3}','[]',NULL,NULL,NULL,'{}','1704067200012000 unstarted
1704067200012000 scheduled
1704067200029000 running claimed by another
',1,30,30,'{"30":1}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(9,1,'t_page',6,'scheduled',1704067200013000,1704067200013000,0,0,0,3,0,1704067200013000,1704067230013000,0,NULL,'',NULL,6,0,0,1,'{"page":10,"t_subject":3}','[]',NULL,NULL,NULL,'{}','1704067200013000 unstarted
1704067200013000 scheduled
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(10,1,'t_page',7,'replayed',1704067200014000,1704067200032000,1,1,0,3,0,1704067200014000,1704067230014000,0,NULL,'',NULL,7,0,0,1,'{"page":11,"t_subject":3}','[]',NULL,NULL,'"later"','{}','1704067200014000 unstarted
1704067200014000 scheduled
1704067200031000 running claimed by worker
1704067200032000 failed
1704067200032000 replayed by its own retry
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(11,1,'t_alarm',0,'scheduled',1704067200019000,1704067200019000,0,0,0,3,0,1704067200019000,1704067230019000,0,NULL,'',NULL,0,0,0,2,'{"t_page:failed":13}','[]',NULL,NULL,NULL,'{}','1704067200019000 unstarted
1704067200019000 scheduled
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(12,1,'t_page',8,'scheduled',1704067200026000,1704067200026000,0,0,0,3,0,1704067200026000,1704067230026000,0,NULL,'',2,2,1,0,1,'{"page":6,"t_subject":3}','[]',NULL,NULL,NULL,'{}','1704067200026000 scheduled replays t_page#2
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(13,1,'t_page',9,'scheduled',1704067200032000,1704067200032000,0,0,0,3,0,1704070800032000,1704070800032000,0,NULL,'',7,7,1,1,1,'{"page":11,"t_subject":3}','[]',NULL,NULL,NULL,'{}','1704067200032000 scheduled replays t_page#7
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(14,2,'t_subject',0,'unstarted',1704067200041000,1704067200041000,0,0,0,3,0,0,0,0,NULL,'',NULL,0,0,0,0,'{"first":1}','[]',NULL,NULL,NULL,'{}','1704067200041000 unstarted
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(15,2,'t_browser',0,'scheduled',1704067200041000,1704067200041000,0,0,0,3,0,1704067200041000,1704067230041000,0,NULL,'',NULL,0,0,0,0,'{"first":1}','[]',NULL,NULL,NULL,'{}','1704067200041000 unstarted
1704067200041000 scheduled
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(16,3,'t_page',0,'unstarted',1704067200042000,1704067200042000,0,0,0,3,0,0,0,0,NULL,'',NULL,0,0,0,0,'{"page":1}','[]',NULL,NULL,NULL,'{}','1704067200042000 unstarted
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(17,4,'t_browser',0,'abandoned',1704067200043000,1704067200043000,0,0,0,3,0,0,0,0,NULL,'',NULL,0,0,0,0,'{}','["embedded"]',NULL,NULL,NULL,'{}','1704067200043000 unstarted
1704067200043000 abandoned
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(18,4,'t_subject',0,'unstarted',1704067200044000,1704067200044000,0,0,0,3,0,0,0,0,NULL,'',NULL,0,0,0,0,'{"first":2}','[]',NULL,NULL,NULL,'{}','1704067200044000 unstarted
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(19,5,'t_one',0,'finished',1704067200047000,1704067200049000,1,1,0,3,0,1704067200047000,1704067230047000,0,NULL,'',NULL,0,0,0,0,'{"go":1}','[]',NULL,2,NULL,'{}','1704067200047000 unstarted
1704067200047000 scheduled
1704067200048000 running claimed by worker
1704067200049000 finished
',0,0,0,'{}',0,0,'[]','[]');
INSERT INTO "instances" VALUES(20,5,'t_last',0,'scheduled',1704067200049000,1704067200049000,0,0,0,3,0,1704067200049000,1704067230049000,0,NULL,'',NULL,0,0,0,0,'{"over":3}','[]',NULL,NULL,NULL,'{}','1704067200049000 unstarted
1704067200049000 scheduled
',0,0,0,'{}',0,0,'[]','[]');
CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions,
    instance INTEGER NOT NULL REFERENCES instances,
    number INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    logger TEXT NOT NULL,
    message TEXT NOT NULL,
    template TEXT NOT NULL,
    context TEXT NOT NULL,
    exception TEXT,
    pathname TEXT NOT NULL,
    lineno INTEGER NOT NULL,
    function TEXT NOT NULL,
    truncated TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    late INTEGER NOT NULL,
    counts INTEGER NOT NULL
);
INSERT INTO "logs" VALUES(1,1,1,1,1,1,1,1700000000000000,20,'survey','Seen.','Said.','{}',NULL,'survey.py',7,'f','[]','9c89c2670daad5f0',0,1);
INSERT INTO "logs" VALUES(2,1,1,2,1,1,2,1700000000000000,40,'survey','Odd.','Said.','{"age":36}',NULL,'survey.py',7,'f','[]','689b4be266dee0c6',0,1);
INSERT INTO "logs" VALUES(3,1,4,1,1,1,1,1700000000000000,40,'survey','Page 1.','Said.','{}',NULL,'survey.py',7,'f','[]','689b4be266dee0c6',0,1);
INSERT INTO "logs" VALUES(4,1,4,2,1,1,2,1700000000000000,30,'survey','Again.','Said.','{}',NULL,'survey.py',7,'f','[]','7bcc0bb5bbe044fc',0,1);
INSERT INTO "logs" VALUES(5,1,5,1,1,1,1,1700000000000000,40,'survey','Page 2.','Said.','{}',NULL,'survey.py',7,'f','[]','689b4be266dee0c6',0,1);
INSERT INTO "logs" VALUES(6,1,5,2,1,1,2,1700000000000000,30,'survey','Again.','Said.','{}',NULL,'survey.py',7,'f','[]','7bcc0bb5bbe044fc',0,1);
INSERT INTO "logs" VALUES(7,1,6,1,1,1,1,1700000000000000,40,'survey','Page 3.','Said.','{}',NULL,'survey.py',7,'f','[]','689b4be266dee0c6',0,1);
INSERT INTO "logs" VALUES(8,1,6,2,1,1,2,1700000000000000,30,'survey','Again.','Said.','{}',NULL,'survey.py',7,'f','[]','7bcc0bb5bbe044fc',0,1);
INSERT INTO "logs" VALUES(9,1,8,1,1,1,1,1700000000000000,30,'survey','Running.','Said.','{"page":5}',NULL,'survey.py',7,'f','[]','7bcc0bb5bbe044fc',0,1);
CREATE TABLE names (
    session INTEGER NOT NULL REFERENCES sessions,
    name TEXT NOT NULL,
    created INTEGER NOT NULL DEFAULT 0,
    unresolved INTEGER NOT NULL DEFAULT 0,
    latest INTEGER,
    depth INTEGER,
    PRIMARY KEY (session, name)
) WITHOUT ROWID;
INSERT INTO "names" VALUES(1,'complete',0,0,2,0);
INSERT INTO "names" VALUES(1,'first',0,0,1,0);
INSERT INTO "names" VALUES(1,'page',0,0,11,0);
INSERT INTO "names" VALUES(1,'t_alarm',1,1,NULL,NULL);
INSERT INTO "names" VALUES(1,'t_browser',1,1,NULL,NULL);
INSERT INTO "names" VALUES(1,'t_page',10,6,16,2);
INSERT INTO "names" VALUES(1,'t_page:failed',0,0,15,2);
INSERT INTO "names" VALUES(1,'t_subject',1,0,3,1);
INSERT INTO "names" VALUES(2,'first',0,0,1,0);
INSERT INTO "names" VALUES(2,'t_browser',1,1,NULL,NULL);
INSERT INTO "names" VALUES(2,'t_subject',1,1,NULL,NULL);
INSERT INTO "names" VALUES(3,'page',0,0,1,0);
INSERT INTO "names" VALUES(3,'t_page',1,1,NULL,NULL);
INSERT INTO "names" VALUES(4,'embedded',0,0,1,0);
INSERT INTO "names" VALUES(4,'first',0,0,2,0);
INSERT INTO "names" VALUES(4,'t_browser',1,0,NULL,NULL);
INSERT INTO "names" VALUES(4,'t_subject',1,1,NULL,NULL);
INSERT INTO "names" VALUES(5,'go',0,0,1,0);
INSERT INTO "names" VALUES(5,'over',0,0,3,0);
INSERT INTO "names" VALUES(5,'t_last',1,1,NULL,NULL);
INSERT INTO "names" VALUES(5,'t_one',1,0,2,1);
INSERT INTO "names" VALUES(6,'page',0,0,1,0);
CREATE TABLE rule_sets (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
);
INSERT INTO "rule_sets" VALUES(1,'32d97029d24a1b0ee4d5157e5bb672402c6b01f9b2e2cb701f268f9b0015535c','{"":{"language":2},"t_subject":{"after":["first","complete"],"run":"survey.Subject"},"t_page":{"after":["t_subject"],"andEvery":"page","run":"survey.Page","withParams":{"api":{"timeout":5}},"retry":{"max":2,"first":"PT10S"}},"t_browser":{"after":["first"],"unless":["embedded"],"run":"survey.Browser","using":"others"},"t_alarm":{"after":["t_page:failed"],"run":"survey.Alarm"},"t_close":{"after":[{"any":["withdrawn",{"atLeast":2,"of":["a","b","c"]}]}],"run":"survey.Close"}}');
INSERT INTO "rule_sets" VALUES(2,'92f4d12b0d75b3bf2a877d1b45bacfa1be9620dbc6a37f8305ff1b2e4b0aba31','{"t_one":{"after":["go"],"run":"one"}}');
INSERT INTO "rule_sets" VALUES(3,'7d8e62d42e2ed634be5fdcefd7aa13b28ae80055ee109c6db97e4dd2b04db05d','{"t_one":{"after":["go"],"run":"two"},"t_last":{"after":["over"],"run":"last"}}');
INSERT INTO "rule_sets" VALUES(4,'44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a','{}');
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    rules INTEGER NOT NULL REFERENCES rule_sets,
    manager TEXT NOT NULL,
    firings INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    finalized INTEGER,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    modified_at INTEGER NOT NULL
);
INSERT INTO "sessions" VALUES(1,'survey',1,'default',16,4,NULL,'{"study":"1996"}',1704067200000000,1704067200037000);
INSERT INTO "sessions" VALUES(2,'unstarted',1,'default',1,4,NULL,'{}',1704067200038000,1704067200041000);
INSERT INTO "sessions" VALUES(3,'💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩',1,'default',1,4,NULL,'{}',1704067200039000,1704067200042000);
INSERT INTO "sessions" VALUES(4,'abandoned',1,'default',2,3,NULL,'{}',1704067200040000,1704067200044000);
INSERT INTO "sessions" VALUES(5,'final',3,'closing',3,0,3,'{}',1704067200045000,1704067200049000);
INSERT INTO "sessions" VALUES(6,'without rules',4,'default',1,0,NULL,'{}',1704067200050000,1704067200050000);
CREATE TABLE waiting (
    session INTEGER NOT NULL REFERENCES sessions,
    trigger TEXT NOT NULL,
    instance INTEGER NOT NULL REFERENCES instances,
    PRIMARY KEY (session, trigger, instance)
) WITHOUT ROWID;
INSERT INTO "waiting" VALUES(2,'complete',14);
INSERT INTO "waiting" VALUES(3,'t_subject',16);
INSERT INTO "waiting" VALUES(4,'complete',18);
CREATE UNIQUE INDEX firings_key ON firings (session, trigger, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX instances_name ON instances (session, task, number);
CREATE INDEX instances_due ON instances (dispatch_after, run_at) WHERE status = 'scheduled';
CREATE INDEX instances_leased ON instances (lease_until) WHERE status = 'running';
CREATE INDEX instances_flagged ON instances (session, log_unresolved) WHERE log_unresolved > 0;
CREATE UNIQUE INDEX logs_number ON logs (instance, number);
CREATE INDEX logs_session ON logs (session, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('logs',9);
COMMIT;
PRAGMA application_id = 1416784231;
PRAGMA user_version = 1;
