CREATE TABLE public.audit_operations (
    operation character varying(64) NOT NULL,
    "time" double precision NOT NULL
);
CREATE TABLE public.corrections (
    id character varying(63) NOT NULL,
    deployment character varying(63) NOT NULL,
    uid character varying(64) NOT NULL,
    model character varying(63) NOT NULL,
    image character varying(64) NOT NULL,
    "group" character varying(64) NOT NULL,
    annotations bytea NOT NULL,
    agreement double precision NOT NULL,
    sample character varying(200) NOT NULL,
    create_time double precision NOT NULL,
    request_id character varying(64) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    pending boolean NOT NULL
);
CREATE TABLE public.deployment_requests (
    method character varying(40) NOT NULL,
    request_id character varying(64) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    deployment character varying(63) NOT NULL,
    create_time double precision NOT NULL
);
CREATE TABLE public.deployment_shadows (
    uid character varying(64) NOT NULL,
    mark character varying(16) NOT NULL,
    model character varying(63) NOT NULL,
    images bigint NOT NULL,
    missed bigint NOT NULL,
    agreed double precision NOT NULL,
    agreed_squares double precision NOT NULL,
    ratios text NOT NULL
);
CREATE TABLE public.deployments (
    id character varying(63) NOT NULL,
    uid character varying(64) NOT NULL,
    spec text NOT NULL,
    status text NOT NULL,
    generation bigint NOT NULL,
    operation character varying(80) NOT NULL,
    create_time double precision NOT NULL,
    update_time double precision NOT NULL,
    revisions text DEFAULT '[]'::text NOT NULL
);
CREATE TABLE public.gateway_leases (
    name character varying(40) NOT NULL,
    owner character varying(80) NOT NULL,
    expires double precision NOT NULL
);
CREATE TABLE public.operations (
    id character varying(64) NOT NULL,
    service character varying(32) NOT NULL,
    method character varying(128) NOT NULL,
    caller character varying(255) NOT NULL,
    request_id character varying(255) NOT NULL,
    request_digest character varying(64) NOT NULL,
    request bytea NOT NULL,
    resource character varying(255) NOT NULL,
    external boolean NOT NULL,
    state integer NOT NULL,
    attempt integer NOT NULL,
    submitted boolean NOT NULL,
    lease_owner character varying(128) NOT NULL,
    lease_expires double precision NOT NULL,
    cleanup text NOT NULL,
    metadata bytea NOT NULL,
    response bytea,
    error bytea,
    create_time double precision NOT NULL,
    start_time double precision,
    update_time double precision NOT NULL,
    cancel_time double precision,
    end_time double precision,
    deadline double precision,
    sweep_time double precision,
    traceparent character varying(128) DEFAULT ''::character varying NOT NULL
);
CREATE TABLE public.oteo_schema (
    part character varying(64) NOT NULL,
    version integer NOT NULL
);
CREATE TABLE public.quota_use (
    caller character varying(255) NOT NULL,
    kind character varying(20) NOT NULL,
    day character varying(10) NOT NULL,
    used bigint NOT NULL
);
CREATE TABLE public.watch_batches (
    number bigint NOT NULL,
    uid character varying(64) NOT NULL,
    mark character varying(16) NOT NULL,
    model character varying(63) NOT NULL,
    images integer NOT NULL,
    classes integer NOT NULL,
    statistics bytea NOT NULL,
    answers bytea NOT NULL,
    create_time double precision NOT NULL
);
CREATE SEQUENCE public.watch_batches_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.watch_batches_number_seq OWNED BY public.watch_batches.number;
CREATE TABLE public.watch_states (
    uid character varying(64) NOT NULL,
    mark character varying(16) NOT NULL,
    model character varying(63) NOT NULL,
    state text NOT NULL,
    update_time double precision NOT NULL
);
ALTER TABLE ONLY public.watch_batches ALTER COLUMN number SET DEFAULT nextval('public.watch_batches_number_seq'::regclass);
INSERT INTO public.audit_operations VALUES ('', 1796030684.427945);
INSERT INTO public.audit_operations VALUES ('augment-00000000000000000001', 1796030684.795423);
INSERT INTO public.audit_operations VALUES ('automl-00000000000000000002', 1796030684.86216);
INSERT INTO public.audit_operations VALUES ('translate-00000000000000000003', 1796030684.938309);
INSERT INTO public.corrections VALUES ('c-1', 'colours', 'uid-colours', 'colours', 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x', 0.5, '', 1767225600, '00000000-0000-4000-8000-000000000005', 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', false);
INSERT INTO public.deployment_requests VALUES ('CreateDeployment', '00000000-0000-4000-8000-000000000004', '765907a8efa46f532041dc5a80b826229b60e3e867f9b2b057cc1e5fc943ccef', 'colours', 1796030685.2776103);
INSERT INTO public.deployment_shadows VALUES ('uid-colours', 'ccdde11d954103d7', 'pale', 1, 3, 1, 1, '{"8": 1}');
INSERT INTO public.deployments VALUES ('colours', 'uid-colours', '{"display_name": "Farben", "models": [{"model_id": "colours", "alias": "champion", "percent": 100, "shadow": false}, {"model_id": "pale", "alias": "next", "percent": 0, "shadow": true}], "adapt": 0, "translator": "", "labels": {"ward": "7"}}', '{"replicas": [{"address": "old:8001", "ready": true, "message": "", "answers": ["colours"]}], "serving": {"models": [{"part": {"model_id": "colours", "alias": "", "percent": 100, "shadow": false}, "digest": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "bridge": null}], "generation": 1}, "failure": ["", ""]}', 1, 'operations/gateway-00000000000000000004', 1767225600, 1767225600, '[]');
INSERT INTO public.deployments VALUES ('broken', 'uid-broken', '{"display_name": "", "models": [{"model_id": "bad", "alias": "", "percent": 100, "shadow": false}], "adapt": 0, "translator": "", "labels": {}}', '{"replicas": [], "serving": null, "failure": ["MODEL_LOAD_FAILED", "no graph"]}', 1, '', 1767225600, 1767225600, '[]');
INSERT INTO public.gateway_leases VALUES ('reconciler', 'a-gateway-of-then', 1796030685.469587);
INSERT INTO public.operations VALUES ('augment-00000000000000000001', 'augment', 'ImportDataset', 'token:radiology', '00000000-0000-4000-8000-000000000001', 'bf4bb2631884052a2c2a01d0ffa7c1bfde4ee8a57fb8ae12982003a982d9597b', '\x0a0563656c6c731a072f696d616765735a2430303030303030302d303030302d343030302d383030302d303030303030303030303031', 'datasets/cells', false, 4, 1, true, '', 1796030684.734461, '[]', '\x0a39747970652e676f6f676c65617069732e636f6d2f6f74656f2e6175676d656e742e76312e496d706f7274446174617365744d65746164617461', '\x0a39747970652e676f6f676c65617069732e636f6d2f6f74656f2e6175676d656e742e76312e496d706f727444617461736574526573706f6e736512120a100a0e64617461736574732f63656c6c73', NULL, 1796030684.734545, NULL, 1796030684.795409, NULL, 1796030684.795423, NULL, NULL, '');
INSERT INTO public.operations VALUES ('automl-00000000000000000002', 'automl', 'TrainModel', 'token:radiology', '00000000-0000-4000-8000-000000000002', 'd72cc5db8aba4469f88f0634573e053b0bcb8d0dbfea1a725e6aff1267f707e0', '\x0a0e64617461736574732f63656c6c731203626164', 'models/bad', false, 5, 5, true, '', 1796030684.831119, '[]', '\x0a35747970652e676f6f676c65617069732e636f6d2f6f74656f2e6175746f6d6c2e76312e547261696e4d6f64656c4d65746164617461', NULL, '\x080d1216746865206a6f62206661696c656420352074696d65731a3c0a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4572726f72496e666f12100a084a4f425f4c4f535412046f74656f', 1796030684.83115, NULL, 1796030684.862148, NULL, 1796030684.86216, NULL, NULL, '');
INSERT INTO public.operations VALUES ('translate-00000000000000000003', 'translate', 'MeasureShift', 'token:radiology', '00000000-0000-4000-8000-000000000003', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', '\x', 'shifts/cells', false, 6, 0, false, 'nobody', 1796030684.925258, '[]', '\x0a3a747970652e676f6f676c65617069732e636f6d2f6f74656f2e7472616e736c6174652e76312e4d65617375726553686966744d65746164617461', NULL, NULL, 1796030684.891728, NULL, 1796030684.938302, 1796030684.910798, 1796030684.938309, NULL, NULL, '');
INSERT INTO public.operations VALUES ('gateway-00000000000000000004', 'gateway', 'CreateDeployment', 'token:radiology', '00000000-0000-4000-8000-000000000004', 'f3c262a2a1fc89e0a38856c83838fc58b5a8dca87c99d67b3b13340269b0330c', '\x0a07636f6c6f7572731246120646617262656e221a0a0e6d6f64656c732f636f6c6f75727322086368616d70696f6e22150a0b6d6f64656c732f70616c65180122046e6578747a090a0477617264120137222430303030303030302d303030302d343030302d383030302d303030303030303030303034', 'deployments/colours', true, 2, 0, false, '', 1796030684.961043, '[]', '\x0a36747970652e676f6f676c65617069732e636f6d2f6f74656f2e676174657761792e76312e4465706c6f796d656e744d65746164617461121512136465706c6f796d656e74732f636f6c6f757273', NULL, NULL, 1796030684.96105, NULL, 1796030684.96105, NULL, NULL, NULL, NULL, '');
INSERT INTO public.oteo_schema VALUES ('operations', 2);
INSERT INTO public.oteo_schema VALUES ('deployments', 2);
INSERT INTO public.oteo_schema VALUES ('quotas', 1);
INSERT INTO public.oteo_schema VALUES ('watch', 1);
INSERT INTO public.oteo_schema VALUES ('feedback', 1);
INSERT INTO public.quota_use VALUES ('token:radiology', 'images', '2026-01-01', 41);
INSERT INTO public.watch_batches VALUES (1, 'uid-colours', 'mark', 'colours', 3, 3, '\x000000000000803f0000004000004040000080400000a0400000c0400000e04000000041000010410000204100003041', '\x8880', 1796030694.021801);
INSERT INTO public.watch_states VALUES ('uid-colours', 'mark', 'colours', '{"images": 3, "window": 3, "last": 1, "unseen": 0, "looked": 0.0, "level": 0.0, "summary": false, "look": null, "alarm": {"on": false, "since": 0.0, "calm": 0}, "ringing": null}', 1796030694.067291);
SELECT pg_catalog.setval('public.watch_batches_number_seq', 1, true);
ALTER TABLE ONLY public.audit_operations
    ADD CONSTRAINT audit_operations_pkey PRIMARY KEY (operation);
ALTER TABLE ONLY public.corrections
    ADD CONSTRAINT corrections_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.deployment_requests
    ADD CONSTRAINT deployment_requests_pkey PRIMARY KEY (method, request_id);
ALTER TABLE ONLY public.deployment_shadows
    ADD CONSTRAINT deployment_shadows_pkey PRIMARY KEY (uid, mark, model);
ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gateway_leases
    ADD CONSTRAINT gateway_leases_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.operations
    ADD CONSTRAINT operations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.oteo_schema
    ADD CONSTRAINT oteo_schema_pkey PRIMARY KEY (part);
ALTER TABLE ONLY public.quota_use
    ADD CONSTRAINT quota_use_pkey PRIMARY KEY (caller, kind, day);
ALTER TABLE ONLY public.watch_batches
    ADD CONSTRAINT watch_batches_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.watch_states
    ADD CONSTRAINT watch_states_pkey PRIMARY KEY (uid, mark, model);
CREATE INDEX corrections_of ON public.corrections USING btree (uid, id);
CREATE UNIQUE INDEX corrections_request ON public.corrections USING btree (request_id) WHERE ((request_id)::text <> ''::text);
CREATE INDEX ix_deployments_create_time ON public.deployments USING btree (create_time);
CREATE INDEX operations_live ON public.operations USING btree (service, end_time);
CREATE UNIQUE INDEX operations_request ON public.operations USING btree (service, method, caller, request_id);
CREATE UNIQUE INDEX operations_resource ON public.operations USING btree (service, resource) WHERE (((resource)::text <> ''::text) AND (end_time IS NULL));
CREATE INDEX quota_use_day ON public.quota_use USING btree (day);
CREATE INDEX watch_batches_of ON public.watch_batches USING btree (uid, mark, model, number);
