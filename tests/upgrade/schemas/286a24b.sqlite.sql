BEGIN TRANSACTION;
CREATE TABLE audit_operations (
	operation VARCHAR(64) NOT NULL, 
	time FLOAT NOT NULL, 
	PRIMARY KEY (operation)
);
INSERT INTO "audit_operations" VALUES('',1.79603066387300944325e+09);
INSERT INTO "audit_operations" VALUES('augment-00000000000000000001',1.79603066402400445931e+09);
INSERT INTO "audit_operations" VALUES('automl-00000000000000000002',1.79603066407099676128e+09);
INSERT INTO "audit_operations" VALUES('translate-00000000000000000003',1.796030664115011692e+09);
CREATE TABLE corrections (
	id VARCHAR(63) NOT NULL, 
	deployment VARCHAR(63) NOT NULL, 
	uid VARCHAR(64) NOT NULL, 
	model VARCHAR(63) NOT NULL, 
	image VARCHAR(64) NOT NULL, 
	"group" VARCHAR(64) NOT NULL, 
	annotations BLOB NOT NULL, 
	agreement FLOAT NOT NULL, 
	sample VARCHAR(200) NOT NULL, 
	create_time FLOAT NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	pending BOOLEAN NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "corrections" VALUES('c-1','colours','uid-colours','colours','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'',0.5,'',1767225600.0,'00000000-0000-4000-8000-000000000005','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',0);
CREATE TABLE deployment_requests (
	method VARCHAR(40) NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	deployment VARCHAR(63) NOT NULL, 
	create_time FLOAT NOT NULL, 
	PRIMARY KEY (method, request_id)
);
INSERT INTO "deployment_requests" VALUES('CreateDeployment','00000000-0000-4000-8000-000000000004','765907a8efa46f532041dc5a80b826229b60e3e867f9b2b057cc1e5fc943ccef','colours',1.7960306642407639026e+09);
CREATE TABLE deployment_shadows (
	uid VARCHAR(64) NOT NULL, 
	mark VARCHAR(16) NOT NULL, 
	model VARCHAR(63) NOT NULL, 
	images BIGINT NOT NULL, 
	missed BIGINT NOT NULL, 
	agreed FLOAT NOT NULL, 
	agreed_squares FLOAT NOT NULL, 
	ratios TEXT NOT NULL, 
	PRIMARY KEY (uid, mark, model)
);
INSERT INTO "deployment_shadows" VALUES('uid-colours','ccdde11d954103d7','pale',1,3,1.0,1.0,'{"8": 1}');
CREATE TABLE deployments (
	id VARCHAR(63) NOT NULL, 
	uid VARCHAR(64) NOT NULL, 
	spec TEXT NOT NULL, 
	status TEXT NOT NULL, 
	generation BIGINT NOT NULL, 
	operation VARCHAR(80) NOT NULL, 
	create_time FLOAT NOT NULL, 
	update_time FLOAT NOT NULL, 
	revisions TEXT DEFAULT '[]' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "deployments" VALUES('colours','uid-colours','{"display_name": "Farben", "models": [{"model_id": "colours", "alias": "champion", "percent": 100, "shadow": false}, {"model_id": "pale", "alias": "next", "percent": 0, "shadow": true}], "adapt": 0, "translator": "", "labels": {"ward": "7"}}','{"replicas": [{"address": "old:8001", "ready": true, "message": "", "answers": ["colours"]}], "serving": {"models": [{"part": {"model_id": "colours", "alias": "", "percent": 100, "shadow": false}, "digest": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "bridge": null}], "generation": 1}, "failure": ["", ""]}',1,'operations/gateway-00000000000000000004',1767225600.0,1767225600.0,'[]');
INSERT INTO "deployments" VALUES('broken','uid-broken','{"display_name": "", "models": [{"model_id": "bad", "alias": "", "percent": 100, "shadow": false}], "adapt": 0, "translator": "", "labels": {}}','{"replicas": [], "serving": null, "failure": ["MODEL_LOAD_FAILED", "no graph"]}',1,'',1767225600.0,1767225600.0,'[]');
CREATE TABLE gateway_leases (
	name VARCHAR(40) NOT NULL, 
	owner VARCHAR(80) NOT NULL, 
	expires FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "gateway_leases" VALUES('reconciler','a-gateway-of-then',1.79603066429598045346e+09);
CREATE TABLE operations (
	id VARCHAR(64) NOT NULL, 
	service VARCHAR(32) NOT NULL, 
	method VARCHAR(128) NOT NULL, 
	caller VARCHAR(255) NOT NULL, 
	request_id VARCHAR(255) NOT NULL, 
	request_digest VARCHAR(64) NOT NULL, 
	request BLOB NOT NULL, 
	resource VARCHAR(255) NOT NULL, 
	external BOOLEAN NOT NULL, 
	state INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	submitted BOOLEAN NOT NULL, 
	lease_owner VARCHAR(128) NOT NULL, 
	lease_expires FLOAT NOT NULL, 
	cleanup TEXT NOT NULL, 
	metadata BLOB NOT NULL, 
	response BLOB, 
	error BLOB, 
	create_time FLOAT NOT NULL, 
	start_time FLOAT, 
	update_time FLOAT NOT NULL, 
	cancel_time FLOAT, 
	end_time FLOAT, 
	deadline FLOAT, 
	sweep_time FLOAT, 
	traceparent VARCHAR(128) DEFAULT '' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "operations" VALUES('augment-00000000000000000001','augment','ImportDataset','token:radiology','00000000-0000-4000-8000-000000000001','bf4bb2631884052a2c2a01d0ffa7c1bfde4ee8a57fb8ae12982003a982d9597b',X'0A0563656C6C731A072F696D616765735A2430303030303030302D303030302D343030302D383030302D303030303030303030303031','datasets/cells',0,4,1,1,'',1.7960306640129804611e+09,'[]',X'0A39747970652E676F6F676C65617069732E636F6D2F6F74656F2E6175676D656E742E76312E496D706F7274446174617365744D65746164617461',X'0A39747970652E676F6F676C65617069732E636F6D2F6F74656F2E6175676D656E742E76312E496D706F727444617461736574526573706F6E736512120A100A0E64617461736574732F63656C6C73',NULL,1.7960306640129804611e+09,NULL,1.79603066402400445931e+09,NULL,1.79603066402400445931e+09,NULL,NULL,'');
INSERT INTO "operations" VALUES('automl-00000000000000000002','automl','TrainModel','token:radiology','00000000-0000-4000-8000-000000000002','d72cc5db8aba4469f88f0634573e053b0bcb8d0dbfea1a725e6aff1267f707e0',X'0A0E64617461736574732F63656C6C731203626164','models/bad',0,5,5,1,'',1.79603066405200672154e+09,'[]',X'0A35747970652E676F6F676C65617069732E636F6D2F6F74656F2E6175746F6D6C2E76312E547261696E4D6F64656C4D65746164617461',NULL,X'080D1216746865206A6F62206661696C656420352074696D65731A3C0A28747970652E676F6F676C65617069732E636F6D2F676F6F676C652E7270632E4572726F72496E666F12100A084A4F425F4C4F535412046F74656F',1.79603066405200672154e+09,NULL,1.79603066407099676128e+09,NULL,1.79603066407099676128e+09,NULL,NULL,'');
INSERT INTO "operations" VALUES('translate-00000000000000000003','translate','MeasureShift','token:radiology','00000000-0000-4000-8000-000000000003','e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',X'','shifts/cells',0,6,0,0,'nobody',1.79603066409799313543e+09,'[]',X'0A3A747970652E676F6F676C65617069732E636F6D2F6F74656F2E7472616E736C6174652E76312E4D65617375726553686966744D65746164617461',NULL,NULL,1.79603066408298611645e+09,NULL,1.796030664115011692e+09,1.79603066408998680112e+09,1.796030664115011692e+09,NULL,NULL,'');
INSERT INTO "operations" VALUES('gateway-00000000000000000004','gateway','CreateDeployment','token:radiology','00000000-0000-4000-8000-000000000004','f3c262a2a1fc89e0a38856c83838fc58b5a8dca87c99d67b3b13340269b0330c',X'0A07636F6C6F7572731246120646617262656E221A0A0E6D6F64656C732F636F6C6F75727322086368616D70696F6E22150A0B6D6F64656C732F70616C65180122046E6578747A090A0477617264120137222430303030303030302D303030302D343030302D383030302D303030303030303030303034','deployments/colours',1,2,0,0,'',1.79603066412000060081e+09,'[]',X'0A36747970652E676F6F676C65617069732E636F6D2F6F74656F2E676174657761792E76312E4465706C6F796D656E744D65746164617461121512136465706C6F796D656E74732F636F6C6F757273',NULL,NULL,1.79603066412000060081e+09,NULL,1.79603066412000060081e+09,NULL,NULL,NULL,NULL,'');
CREATE TABLE oteo_schema (
	part VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (part)
);
INSERT INTO "oteo_schema" VALUES('operations',2);
INSERT INTO "oteo_schema" VALUES('deployments',2);
INSERT INTO "oteo_schema" VALUES('quotas',1);
INSERT INTO "oteo_schema" VALUES('watch',1);
INSERT INTO "oteo_schema" VALUES('feedback',1);
CREATE TABLE quota_use (
	caller VARCHAR(255) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	day VARCHAR(10) NOT NULL, 
	used BIGINT NOT NULL, 
	PRIMARY KEY (caller, kind, day)
);
INSERT INTO "quota_use" VALUES('token:radiology','images','2026-01-01',41);
CREATE TABLE watch_batches (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	uid VARCHAR(64) NOT NULL, 
	mark VARCHAR(16) NOT NULL, 
	model VARCHAR(63) NOT NULL, 
	images INTEGER NOT NULL, 
	classes INTEGER NOT NULL, 
	statistics BLOB NOT NULL, 
	answers BLOB NOT NULL, 
	create_time FLOAT NOT NULL
);
INSERT INTO "watch_batches" VALUES(1,'uid-colours','mark','colours',3,3,X'000000000000803F0000004000004040000080400000A0400000C0400000E04000000041000010410000204100003041',X'8880',1.79603067132700228688e+09);
CREATE TABLE watch_states (
	uid VARCHAR(64) NOT NULL, 
	mark VARCHAR(16) NOT NULL, 
	model VARCHAR(63) NOT NULL, 
	state TEXT NOT NULL, 
	update_time FLOAT NOT NULL, 
	PRIMARY KEY (uid, mark, model)
);
INSERT INTO "watch_states" VALUES('uid-colours','mark','colours','{"images": 3, "window": 3, "last": 1, "unseen": 0, "looked": 0.0, "level": 0.0, "summary": false, "look": null, "alarm": {"on": false, "since": 0.0, "calm": 0}, "ringing": null}',1796030671.33002);
CREATE INDEX operations_live ON operations (service, end_time);
CREATE UNIQUE INDEX operations_resource ON operations (service, resource) WHERE resource <> '' AND end_time IS NULL;
CREATE UNIQUE INDEX operations_request ON operations (service, method, caller, request_id);
CREATE INDEX ix_deployments_create_time ON deployments (create_time);
CREATE INDEX quota_use_day ON quota_use (day);
CREATE INDEX watch_batches_of ON watch_batches (uid, mark, model, number);
CREATE INDEX corrections_of ON corrections (uid, id);
CREATE UNIQUE INDEX corrections_request ON corrections (request_id) WHERE request_id <> '';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('watch_batches',1);
COMMIT;
