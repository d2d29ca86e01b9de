CREATE TABLE public.audit_operations (
    operation character varying(64) NOT NULL,
    "time" double precision NOT NULL
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
INSERT INTO public.audit_operations VALUES ('', 1796030604.708752);
INSERT INTO public.audit_operations VALUES ('augment-00000000000000000001', 1796030605.164224);
INSERT INTO public.audit_operations VALUES ('automl-00000000000000000002', 1796030605.239866);
INSERT INTO public.audit_operations VALUES ('translate-00000000000000000003', 1796030605.368989);
INSERT INTO public.deployment_requests VALUES ('CreateDeployment', '00000000-0000-4000-8000-000000000004', '765907a8efa46f532041dc5a80b826229b60e3e867f9b2b057cc1e5fc943ccef', 'colours', 1796030605.728044);
INSERT INTO public.deployment_shadows VALUES ('uid-colours', 'ccdde11d954103d7', 'pale', 1, 3, 1, 1, '{"8": 1}');
INSERT INTO public.deployments VALUES ('colours', 'uid-colours', '{"display_name": "Farben", "models": [{"model_id": "colours", "alias": "champion", "percent": 100, "shadow": false}, {"model_id": "pale", "alias": "next", "percent": 0, "shadow": true}], "adapt": 0, "translator": "", "labels": {"ward": "7"}}', '{"replicas": [{"address": "old:8001", "ready": true, "message": "", "answers": ["colours"]}], "serving": {"models": [{"part": {"model_id": "colours", "alias": "", "percent": 100, "shadow": false}, "digest": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "bridge": null}], "generation": 1}, "failure": ["", ""]}', 1, 'operations/gateway-00000000000000000004', 1767225600, 1767225600, '[]');
INSERT INTO public.deployments VALUES ('broken', 'uid-broken', '{"display_name": "", "models": [{"model_id": "bad", "alias": "", "percent": 100, "shadow": false}], "adapt": 0, "translator": "", "labels": {}}', '{"replicas": [], "serving": null, "failure": ["MODEL_LOAD_FAILED", "no graph"]}', 1, '', 1767225600, 1767225600, '[]');
INSERT INTO public.gateway_leases VALUES ('reconciler', 'a-gateway-of-then', 1796030605.809291);
INSERT INTO public.operations VALUES ('augment-00000000000000000001', 'augment', 'ImportDataset', 'token:radiology', '00000000-0000-4000-8000-000000000001', 'bf4bb2631884052a2c2a01d0ffa7c1bfde4ee8a57fb8ae12982003a982d9597b', '\x0a0563656c6c731a072f696d616765735a2430303030303030302d303030302d343030302d383030302d303030303030303030303031', 'datasets/cells', false, 4, 1, true, '', 1796030605.086407, '[]', '\x0a39747970652e676f6f676c65617069732e636f6d2f6f74656f2e6175676d656e742e76312e496d706f7274446174617365744d65746164617461', '\x0a39747970652e676f6f676c65617069732e636f6d2f6f74656f2e6175676d656e742e76312e496d706f727444617461736574526573706f6e736512120a100a0e64617461736574732f63656c6c73', NULL, 1796030605.086833, NULL, 1796030605.164213, NULL, 1796030605.164224, NULL, NULL, '');
INSERT INTO public.operations VALUES ('automl-00000000000000000002', 'automl', 'TrainModel', 'token:radiology', '00000000-0000-4000-8000-000000000002', 'd72cc5db8aba4469f88f0634573e053b0bcb8d0dbfea1a725e6aff1267f707e0', '\x0a0e64617461736574732f63656c6c731203626164', 'models/bad', false, 5, 5, true, '', 1796030605.206641, '[]', '\x0a35747970652e676f6f676c65617069732e636f6d2f6f74656f2e6175746f6d6c2e76312e547261696e4d6f64656c4d65746164617461', NULL, '\x080d1216746865206a6f62206661696c656420352074696d65731a3c0a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4572726f72496e666f12100a084a4f425f4c4f535412046f74656f', 1796030605.206654, NULL, 1796030605.239857, NULL, 1796030605.239866, NULL, NULL, '');
INSERT INTO public.operations VALUES ('translate-00000000000000000003', 'translate', 'MeasureShift', 'token:radiology', '00000000-0000-4000-8000-000000000003', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', '\x', 'shifts/cells', false, 6, 0, false, 'nobody', 1796030605.336429, '[]', '\x0a3a747970652e676f6f676c65617069732e636f6d2f6f74656f2e7472616e736c6174652e76312e4d65617375726553686966744d65746164617461', NULL, NULL, 1796030605.291914, NULL, 1796030605.368977, 1796030605.323833, 1796030605.368989, NULL, NULL, '');
INSERT INTO public.operations VALUES ('gateway-00000000000000000004', 'gateway', 'CreateDeployment', 'token:radiology', '00000000-0000-4000-8000-000000000004', 'f3c262a2a1fc89e0a38856c83838fc58b5a8dca87c99d67b3b13340269b0330c', '\x0a07636f6c6f7572731246120646617262656e221a0a0e6d6f64656c732f636f6c6f75727322086368616d70696f6e22150a0b6d6f64656c732f70616c65180122046e6578747a090a0477617264120137222430303030303030302d303030302d343030302d383030302d303030303030303030303034', 'deployments/colours', true, 2, 0, false, '', 1796030605.418328, '[]', '\x0a36747970652e676f6f676c65617069732e636f6d2f6f74656f2e676174657761792e76312e4465706c6f796d656e744d65746164617461121512136465706c6f796d656e74732f636f6c6f757273', NULL, NULL, 1796030605.418341, NULL, 1796030605.418342, NULL, NULL, NULL, NULL, '');
INSERT INTO public.oteo_schema VALUES ('operations', 2);
INSERT INTO public.oteo_schema VALUES ('deployments', 2);
ALTER TABLE ONLY public.audit_operations
    ADD CONSTRAINT audit_operations_pkey PRIMARY KEY (operation);
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
CREATE INDEX ix_deployments_create_time ON public.deployments USING btree (create_time);
CREATE INDEX operations_live ON public.operations USING btree (service, end_time);
CREATE UNIQUE INDEX operations_request ON public.operations USING btree (service, method, caller, request_id);
CREATE UNIQUE INDEX operations_resource ON public.operations USING btree (service, resource) WHERE (((resource)::text <> ''::text) AND (end_time IS NULL));
