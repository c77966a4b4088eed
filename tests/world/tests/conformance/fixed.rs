//! Scripts written by hand, for what a random one does not meet.

use redis_migrate_world::server::Since;

use super::play::{Pair, Step, script};
use super::real;

/// Plays each script against every server of which `since` is true.
fn hold(since: Since, scripts: &[&str]) {
    let mut differences = Vec::new();
    for release in real::available()
        .into_iter()
        .filter(|release| release.has(since))
    {
        let mut pair = Pair::new(release);
        for text in scripts {
            let steps: Vec<Step> = script(text);
            differences.extend(pair.told(&steps));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn transactions() {
    hold(
        Since::Always,
        &[
            "MULTI\nSET a 1\nGET a\nINCR a\nLPUSH a x\nEXEC\nGET a",
            "EXEC\nDISCARD\nMULTI\nDISCARD\nEXEC",
            "MULTI\nNOSUCH a b\nSET a 1\nEXEC\nGET a",
            "MULTI\nSET a\nSET a 1\nEXEC\nGET a",
            "MULTI\nSELECT 3\nSET a 1\nEXEC\nGET a\nSELECT 0\nGET a",
            "WATCH a\n1> SET a 1\nMULTI\nGET a\nEXEC",
            "WATCH a\nGET a\n1> GET a\nMULTI\nGET a\nEXEC",
            "SET a 1\nWATCH a\n1> DEL a\nMULTI\nEXEC",
            "WATCH a\n1> SET a 1\nUNWATCH\nMULTI\nGET a\nEXEC",
            "WATCH a\n1> SET a 1\nMULTI\nDISCARD\nMULTI\nGET a\nEXEC",
            "SET a 1\nWATCH a\n1> FLUSHALL\nMULTI\nGET a\nEXEC",
            "WATCH a\n1> FLUSHALL\nMULTI\nGET a\nEXEC",
            "WATCH a\n1> SELECT 1\n1> SET a 1\nMULTI\nGET a\nEXEC",
            "SET a 1\nWATCH a\n1> SWAPDB 0 1\nMULTI\nGET a\nEXEC",
            "WATCH a\n1> SELECT 1\n1> SET a 1\n1> SWAPDB 0 1\nMULTI\nGET a\nEXEC",
            "SET a 1\nWATCH a\n1> RENAME a b\nMULTI\nGET a\nEXEC",
            "SET a 1\nWATCH a\n1> PEXPIREAT a 1\nMULTI\nGET a\nEXEC",
            "SET a 1 PX 30\nWATCH a\nwait 60\nMULTI\nGET a\nEXEC",
            "SET a 1 PX 30\nwait 60\nWATCH a\nMULTI\nGET a\nEXEC",
            "XADD s 1-1 a b\nWATCH s\n1> XGROUP CREATE s g 0\nMULTI\nXLEN s\nEXEC",
            "XADD s 1-1 a b\nXGROUP CREATE s g 0\nWATCH s\n1> XREADGROUP GROUP g c STREAMS s >\nMULTI\nXLEN s\nEXEC",
            "MULTI\nMULTI\nSET a 1\nEXEC\nGET a",
            "MULTI\nWATCH a\nSET a 1\nEXEC\nGET a",
            "MULTI\nEXEC\nMULTI\nPING\nEXEC\nTIME",
        ],
    );
}

#[test]
fn keys_and_databases() {
    hold(
        Since::Always,
        &[
            "SELECT 1\nSET a 1\nSELECT 0\nGET a\nSELECT 16\nSELECT x\nSELECT -1\nDBSIZE",
            "SET a 1\nMOVE a 1\nGET a\nSELECT 1\nGET a\nMOVE a 1\nMOVE a 99\nMOVE a x",
            "SET a 1\nSWAPDB 0 1\nGET a\nSELECT 1\nGET a\nSWAPDB 0 99\nSWAPDB x 1\nSWAPDB 0 x",
            "SET a 1\nFLUSHDB\nGET a\nFLUSHDB ASYNC\nFLUSHDB x\nFLUSHDB ASYNC x\nFLUSHALL ASYNC",
            "SET a 1\nRENAME a a\nRENAMENX a a\nRENAME x y\nRENAMENX x x",
            "SCAN 0\nSCAN x\nSCAN 0 COUNT 0\nSCAN 0 COUNT x\nSCAN 0 MATCH\nSCAN 18446744073709551616\nSCAN 0 FOO 1",
            "SET a 1\nSET b 1\nRPUSH l 1\nSCAN 0 COUNT 100\nSCAN 0 COUNT 100 MATCH a*\nSCAN 0 MATCH [",
            "SET a 1 PX 30\nwait 60\nGET a\nEXISTS a\nTTL a\nDBSIZE",
            "SET a 1 PX 30\nSET b 1\nwait 60\nRENAME b a\nGET a\nPTTL a",
            "PING\nPING x\nPING x y\nECHO x\nECHO",
            "NOSUCH\nNOSUCH a\nNOSUCH a b c\nGET\nGET a b\nSET a",
            "OBJECT FOO a\nOBJECT IDLETIME\nXINFO FOO\nXINFO STREAM\nCONFIG FOO\nCLIENT FOO\nSCRIPT FOO",
            "SET a 1\nOBJECT REFCOUNT nokey\nMEMORY USAGE a\nMEMORY USAGE nokey\nMEMORY USAGE a SAMPLES 0",
            "CLIENT ID\nCLIENT GETNAME\nCLIENT SETNAME x\nCLIENT GETNAME\nCLIENT SETNAME 'a b'\nCLIENT SETNAME ''\nCLIENT GETNAME",
            "CLIENT LIST\nCLIENT KILL ID 99999\nCLIENT KILL ID 0\nCLIENT KILL ID x\nCLIENT KILL ID 9223372036854775807",
            "CLIENT PAUSE never\nCLIENT PAUSE -1\nCLIENT PAUSE 0",
            "WAIT 0 1\nWAIT 1 10\nWAIT x 1\nWAIT 0 x\nWAIT 0 -1",
            "CONFIG GET maxmemory\nCONFIG GET maxmemory-policy\nCONFIG GET nosuch\nCONFIG GET proto-max-bulk-len\nCONFIG SET nosuch 1\nCONFIG RESETSTAT",
            "CLUSTER SLOTS\nCLUSTER NODES\nCLUSTER COUNTKEYSINSLOT 1\nASKING\nREADONLY\nCLUSTER MYID",
            "REPLCONF capa eof\nREPLCONF rdb-only 1\nREPLCONF foo 1",
            "AUTH x\nAUTH default x\nAUTH a b\nAUTH",
            "MODULE LIST\nLASTSAVE\nROLE",
            "EVAL 'return 1' 0\nEVAL 'return 1' x\nEVAL 'return 1' 1\nEVAL 'return 1' -1",
            "EVAL 'return redis.call('SET', KEYS[1], ARGV[1])' 1 k v",
        ],
    );
}

#[test]
fn expiry_that_is_over() {
    hold(
        Since::Always,
        &[
            "SET a 1\nEXPIRE a 0\nGET a\nSET a 1\nPEXPIRE a -5\nGET a\nSET a 1\nPEXPIREAT a 1\nEXISTS a",
            "SET a 1\nPEXPIREAT a 99999999999999\nPTTL a\nPERSIST a\nPERSIST a\nPTTL a",
            "SET a 1\nEXPIRE a 9223372036854775807\nPEXPIRE a 9223372036854775807\nPEXPIREAT a 9223372036854775807\nEXISTS a",
            "SET a 1\nEXPIRE a x\nEXPIRE nokey 10\nEXPIRE a -9223372036854775808\nEXISTS a",
            "SET a 1 EX 0\nSET a 1 PX -1\nSET a 1 EX 9223372036854775807\nSETEX a 0 x\nPSETEX a -1 x\nSETEX a x x",
            "SET a 1 PX 100000\nSET a 2\nPTTL a\nSET a 1 PX 100000\nAPPEND a x\nPTTL a\nINCR b\nSET b 5 PX 100000\nINCR b\nPTTL b\nGETSET b 1\nPTTL b",
        ],
    );
    hold(
        Since::R62,
        &[
            "SET a 1 PXAT 1\nGET a\nEXISTS a\nSET a 1 EXAT 1\nDBSIZE",
            "SET a 1\nGETEX a PXAT 1\nGET a\nSET a 1\nGETEX a PX 0\nGETEX a EX x\nGETEX a FOO\nGETEX nokey",
            "SET a 1\nSET a 2 GET PX 100000\nPTTL a\nSET a 3 XX GET KEEPTTL\nPTTL a\nRPUSH l 1\nSET l 1 GET",
            "SET a 1\nCOPY a b DB 1\nCOPY a a\nCOPY a b DB x\nCOPY a b DB 99\nCOPY a b FOO\nSELECT 1\nGET b",
        ],
    );
}

#[test]
fn field_expiry_that_is_over() {
    hold(
        Since::FieldTtl,
        &[
            "HSET h a 1 b 2\nHPEXPIREAT h 1 FIELDS 1 a\nHGETALL h\nHPEXPIREAT h 1 FIELDS 2 a b\nEXISTS h",
            "HSET h a 1\nHPEXPIRE h 0 FIELDS 1 a\nEXISTS h",
            "HSET h a 1 b 2\nHPEXPIRE h 30 FIELDS 1 a\nwait 300\nHGET h a\nHGETALL h\nHLEN h\nDUMP h",
            "HSET h a 1\nHPEXPIRE h 30 FIELDS 1 a\nwait 300\nHGETALL h\nEXISTS h\nTYPE h\nDBSIZE",
            "HSET h a 1\nHPEXPIREAT h 70368744177663 FIELDS 1 a\nHPEXPIREAT h 70368744177664 FIELDS 1 a\nHPEXPIRETIME h FIELDS 1 a",
            "HPEXPIREAT nokey 1 FIELDS 1 f\nHPTTL nokey FIELDS 1 f\nHPERSIST nokey FIELDS 2 f g",
            "SET s 1\nHPEXPIREAT s 1 FIELDS 1 f\nHPTTL s FIELDS 1 f",
            "HSET h a 1\nHPEXPIREAT h 99999999999999 FIELDS 0 a\nHPEXPIREAT h 99999999999 FIELDS 2 a\nHPEXPIREAT h -1 FIELDS 1 a\nHPEXPIREAT h x FIELDS 1 a\nHPEXPIREAT h 1 FOO 1 a",
        ],
    );
}

#[test]
fn streams_of_the_newest() {
    hold(
        Since::R86,
        &[
            "XADD s 1-1 a b\nXCFGSET s IDMP-DURATION 7\nXCFGSET s IDMP-MAXSIZE 9\nXINFO STREAM s\nDUMP s",
            "XCFGSET nokey IDMP-DURATION 7\nXADD s 1-1 a b\nXCFGSET s IDMP-DURATION 0\nXCFGSET s IDMP-DURATION x\nXCFGSET s FOO 1\nXCFGSET s\nXCFGSET s IDMP-MAXSIZE 10001",
            "XIDMPRECORD nokey p i 1-1\nXADD s 1-1 a b\nXIDMPRECORD s p i 1-1\nXIDMPRECORD s p i 1-1\nXIDMPRECORD s p j 2-1\nXIDMPRECORD s p i 3-1\nXINFO STREAM s",
        ],
    );
}

#[test]
fn newer_words() {
    hold(
        Since::R60,
        &[
            "HELLO 2\nHELLO 3\nHELLO 4\nHELLO x\nHELLO 2 FOO",
            "ACL WHOAMI\nACL GETUSER default\nACL GETUSER nosuch\nACL USERS\nACL FOO",
            "CLIENT TRACKING ON\nCLIENT TRACKING OFF\nCLIENT TRACKING FOO\nCLIENT TRACKING ON BCAST",
            "HELLO 3\nCLIENT TRACKING ON PREFIX a\nCLIENT TRACKING ON BCAST\nCLIENT TRACKING ON\nCLIENT TRACKING OFF\nCLIENT TRACKING ON FOO",
            "SET a 1\nSCAN 0 TYPE string\nSCAN 0 TYPE list\nSCAN 0 TYPE bogus",
            "HELLO 3\nHSET h a 1\nHGETALL h\nZADD z 1.5 a\nZRANGE z 0 -1 WITHSCORES\nZSCORE z a\nGET nokey\nLPOP nokey 1\nXREAD STREAMS nokey 0\nSADD s a\nSMEMBERS s\nCONFIG GET maxmemory",
        ],
    );
    hold(
        Since::R62,
        &[
            "CLIENT TRACKINGINFO\nHELLO 3\nCLIENT TRACKING ON BCAST\nCLIENT TRACKINGINFO\nCLIENT INFO",
            "CLIENT PAUSE never WRITE\nCLIENT PAUSE 1 FOO\nCLIENT PAUSE -1 WRITE\nCLIENT UNPAUSE\nCLIENT PAUSE 1 WRITE x",
            "RESET\nSELECT 2\nRESET\nSET a 1\nSELECT 0\nGET a",
        ],
    );
    hold(
        Since::R70,
        &[
            "FUNCTION LIST\nFUNCTION DUMP\nFUNCTION LOAD x\nFUNCTION LOAD '#!lua name=l'\nFUNCTION RESTORE ''\nFUNCTION RESTORE x FOO\nFUNCTION DELETE nosuch\nFUNCTION FOO\nFUNCTION LIST LIBRARYNAME\nFUNCTION LIST FOO",
            "ACL DRYRUN default GET a\nACL DRYRUN nosuch GET a\nACL DRYRUN default NOSUCH\nACL DRYRUN default GET",
            "CLIENT NO-EVICT ON\nCLIENT NO-EVICT x\nOBJECT FREQ nokey",
            "EVAL '#!lua flags=no-writes' 0\nEVAL_RO 'return 1' 0",
        ],
    );
}
