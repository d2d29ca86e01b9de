"""The contract keeps its own rules: what a client may rely on for every method."""

from __future__ import annotations

import importlib

import pytest
from google.api import field_behavior_pb2, resource_pb2
from google.longrunning import operations_pb2
from google.protobuf import descriptor as d
from google.protobuf import descriptor_pool, message_factory

MODULES = [
    "oteo_protos.augment.v1.augment_pb2",
    "oteo_protos.augment.v1.dataset_pb2",
    "oteo_protos.automl.v1.automl_pb2",
    "oteo_protos.translate.v1.translate_pb2",
    "oteo_protos.gateway.v1.inference_pb2",
    "oteo_protos.gateway.v1.deployment_pb2",
    "oteo_protos.gateway.v1.feedback_pb2",
    "oteo_protos.gateway.v1.pipeline_pb2",
    "oteo_protos.gateway.v1.identity_pb2",
]
# The design's table: what every release serves, by service.
TABLE = {
    "oteo.augment.v1.DatasetService": "ImportDataset* UploadDataset* GetDataset ListDatasets DeleteDataset AuditDataset* ExportDataset* ListSamples",
    "oteo.augment.v1.AugmentService": "ListTransforms PreviewAugmentation AugmentImages AugmentDataset* ReplayAugmentation",
    "oteo.automl.v1.AutoMLService": "TrainModel* EvaluateModel* ListEvaluations ListTrials GetModel ListModels DeleteModel ExportModel* CombinePredictions* CompareModels",
    "oteo.translate.v1.TranslateService": "MeasureShift* TrainTranslator* TranslateDataset* TranslateImages GetTranslator ListTranslators DeleteTranslator",
    "oteo.gateway.v1.InferenceService": "Predict PredictStream",
    "oteo.gateway.v1.DeploymentService": "CreateDeployment* GetDeployment ListDeployments UpdateDeployment* RollbackDeployment* DeleteDeployment",
    "oteo.gateway.v1.FeedbackService": "SubmitCorrection GetCorrection ListCorrections",
    "oteo.gateway.v1.PipelineService": "RunPipeline*",
    "oteo.gateway.v1.IdentityService": "WhoAmI",
}
READS = ("Get", "List", "Predict", "Preview", "Replay", "Compare", "WhoAmI", "AugmentImages", "TranslateImages")


def services() -> dict[str, d.ServiceDescriptor]:
    return {s.full_name: s for name in MODULES for s in importlib.import_module(name).DESCRIPTOR.services_by_name.values()}


METHODS = [method for service in services().values() for method in service.methods]


def resolve(method: d.MethodDescriptor, name: str) -> d.Descriptor:
    package = method.containing_service.file.package
    return descriptor_pool.Default().FindMessageTypeByName(name if "." in name else f"{package}.{name}")


def test_the_designs_table_is_served_whole() -> None:
    found = {
        name: {m.name + ("*" if m.output_type.full_name == "google.longrunning.Operation" else "") for m in service.methods}
        for name, service in services().items()
    }
    assert found == {name: set(methods.split()) for name, methods in TABLE.items()}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_long_work_names_its_types_and_shows_progress(method: d.MethodDescriptor) -> None:
    if method.output_type.full_name != "google.longrunning.Operation":
        assert not method.GetOptions().HasExtension(operations_pb2.operation_info)
        return
    info = method.GetOptions().Extensions[operations_pb2.operation_info]
    resolve(method, info.response_type)
    first = resolve(method, info.metadata_type).fields_by_number[1]
    assert (first.name, first.message_type.full_name) == ("progress", "oteo.type.v1.Progress")


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_what_changes_something_can_be_repeated_safely(method: d.MethodDescriptor) -> None:
    if method.name.startswith(READS):
        return
    request = method.input_type
    if method.client_streaming:
        request = request.fields_by_name["settings"].message_type
    assert "request_id" in request.fields_by_name, f"{method.full_name} has no request_id (AIP-155)"


@pytest.mark.parametrize("method", [m for m in METHODS if m.name.startswith("List")], ids=lambda m: m.full_name)
def test_lists_are_paged(method: d.MethodDescriptor) -> None:
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name


@pytest.mark.parametrize("method", [m for m in METHODS if m.name.startswith(("Get", "Delete"))], ids=lambda m: m.full_name)
def test_names_are_required_and_checked(method: d.MethodDescriptor) -> None:
    field = method.input_type.fields_by_name["name"]
    assert field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    assert field.GetOptions().Extensions[resource_pb2.resource_reference].type.startswith("oteo/")
    import protovalidate

    request = message_factory.GetMessageClass(method.input_type)()
    request.name = "nonsense"
    with pytest.raises(protovalidate.ValidationError):
        protovalidate.Validator().validate(request)
