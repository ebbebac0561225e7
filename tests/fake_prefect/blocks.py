"""Block documents of the one block type that the fake knows, Secret, and that type with its schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import Field, model_validator

from tests.fake_prefect.fields import Json, Name, dashed
from tests.fake_prefect.filters import Combined, Filter, Ids, Is, Like, Names, NamesLike, Query, matches, page
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, refuse

HIDDEN = "********"
PURPOSE = (
    "A block that represents a secret value. The value stored in this block will be obfuscated when this block "
    "is viewed or edited in the UI."
)
SECRET_TYPE = {
    "name": "Secret",
    "slug": "secret",
    "logo_url": "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/"
    "assets/block-logos/secret.png",
    "documentation_url": "https://docs.prefect.io/latest/develop/blocks",
    "description": PURPOSE,
    "code_example": (
        '```python\nfrom prefect.blocks.system import Secret\n\nSecret(value="sk-1234567890").save("BLOCK_NAME", '
        'overwrite=True)\n\nsecret_block = Secret.load("BLOCK_NAME")\n\n# Access the stored secret\n'
        "secret_block.get()\n```"
    ),
    "is_protected": True,
}
SECRET_FIELDS = {
    "block_type_slug": "secret",
    "description": PURPOSE,
    "properties": {
        "value": {
            "anyOf": [
                {"format": "password", "type": "string", "writeOnly": True},
                {"title": "string", "type": "string"},
                {"$ref": "#/definitions/JsonValue", "title": "JSON"},
            ],
            "description": "A value that should be kept secret.",
            "examples": ["sk-1234567890", {"password": "s3cr3t", "username": "johndoe"}],
            "format": "password",
            "title": "Value",
            "writeOnly": True,
            "position": 0,
        }
    },
    "required": ["value"],
    "secret_fields": ["value", "value"],
    "title": "Secret",
    "type": "object",
    "block_schema_references": {},
}
CHECKSUM = "sha256:c078ed9c1e813e224c0b353d7ad4564a11d51d3198d9ac0686478165a1911c78"


class DocumentCreate(Body):
    name: Annotated[Name, dashed("Block document name")] | None = None
    data: Json = Field(default_factory=dict)
    block_schema_id: UUID
    block_type_id: UUID
    is_anonymous: bool = False

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("is_anonymous") and not values.get("name"):
            raise ValueError("Names must be provided for block documents.")
        return values


class DocumentUpdate(Body):
    block_schema_id: UUID | None = None
    data: Json = Field(default_factory=dict)
    merge_existing_data: bool = True


class TypeFilter(Filter):
    name: Like | None = None
    slug: Names | None = None


class SchemaFilter(Combined):
    id: Ids | None = None
    block_type_id: Ids | None = None
    version: Names | None = None


class DocumentFilter(Combined):
    id: Ids | None = None
    is_anonymous: Is | None = Is(eq_=False)
    block_type_id: Ids | None = None
    name: NamesLike | None = None


class TypeQuery(Query):
    block_types: TypeFilter | None = None


class SchemaQuery(Query):
    block_schemas: SchemaFilter | None = None


class DocumentQuery(Query):
    block_documents: DocumentFilter = DocumentFilter()
    block_types: TypeFilter | None = None
    include_secrets: bool = False
    sort: Literal["NAME_DESC", "NAME_ASC"] = "NAME_ASC"


def install(store: Store, version: str) -> None:
    """What a server registers when it starts."""
    kind = store.block_types.add(**SECRET_TYPE)
    schema = {"checksum": CHECKSUM, "fields": SECRET_FIELDS, "capabilities": [], "version": version}
    store.block_schemas.add(**schema, block_type_id=kind["id"], block_type=kind)


def find_types(call: Call) -> Answer:
    query = call.body(TypeQuery, optional=True)
    return Answer(200, page([row for row in call.store.block_types.where() if matches(query.block_types, row)], query))


def read_type(call: Call) -> Answer:
    return Answer(200, _type(call))


def find_schemas(call: Call) -> Answer:
    query = call.body(SchemaQuery, optional=True)
    rows = [row for row in call.store.block_schemas.where() if matches(query.block_schemas, row)]
    return Answer(200, page(rows, query, "CREATED_DESC"))


def read_schema(call: Call) -> Answer:
    schema = call.store.block_schemas.find(checksum=call.path["checksum"])
    if schema is None:
        raise refuse(404, "Block schema not found")
    return Answer(200, schema)


def create(call: Call) -> Answer:
    body = call.body(DocumentCreate)
    if body.name and call.store.block_documents.find(block_type_id=body.block_type_id, name=body.name):
        raise refuse(409, "Block already exists")
    values = {**body.model_dump(), "name": body.name or f"anonymous-{uuid4()}"}
    return Answer(201, _shape(call.store, call.store.block_documents.add(**values), secrets=False))


def find(call: Call) -> Answer:
    query = call.body(DocumentQuery, optional=True)
    rows = [
        row
        for row in call.store.block_documents.where()
        if matches(query.block_documents, row)
        and matches(query.block_types, call.store.block_types.get(row["block_type_id"]))
    ]
    return Answer(200, [_shape(call.store, row, query.include_secrets) for row in page(rows, query)])


def find_of_type(call: Call) -> Answer:
    rows = call.store.block_documents.where(block_type_id=_type(call)["id"])
    return Answer(200, [_shape(call.store, row, _secrets(call)) for row in page(rows, Query())])


def read(call: Call) -> Answer:
    return Answer(200, _shape(call.store, _document(call), _secrets(call)))


def read_by_name(call: Call) -> Answer:
    kind = call.store.block_types.find(slug=call.path["slug"]) or {"id": None}
    document = call.store.block_documents.find(block_type_id=kind["id"], name=call.path["name"])
    if document is None:
        raise refuse(404, "Block document not found")
    return Answer(200, _shape(call.store, document, _secrets(call)))


def update(call: Call) -> Answer:
    """A value sent back as it was shown, hidden, changes nothing."""
    body = call.body(DocumentUpdate)
    document = _document(call)
    data = dict(body.data)
    if data.get("value") == HIDDEN:
        data["value"] = document["data"]["value"]
    if body.merge_existing_data:
        data = {**document["data"], **data}
    call.store.block_documents.change(document, data=data)
    return Answer(204)


def delete(call: Call) -> Answer:
    call.store.block_documents.remove(_document(call))
    return Answer(204)


def _secrets(call: Call) -> bool:
    return call.query.get("include_secrets", "false").lower() in ("true", "1")


def _type(call: Call) -> Row:
    kind = call.store.block_types.find(slug=call.path["slug"])
    if kind is None:
        raise refuse(404, "Block type not found")
    return kind


def _document(call: Call) -> Row:
    document = call.store.block_documents.get(call.id())
    if document is None:
        raise refuse(404, "Block document not found")
    return document


def _shape(store: Store, document: Row, secrets: bool) -> Row:
    kind = store.block_types.get(document["block_type_id"]) or {"name": None}
    data = document["data"] if secrets else {name: _hide(value) for name, value in document["data"].items()}
    return {
        **document,
        "data": data,
        "block_schema": store.block_schemas.get(document["block_schema_id"]),
        "block_type": kind,
        "block_type_name": kind["name"],
        "block_document_references": {},
    }


def _hide(value: Any) -> Any:
    """A dict is shown in clear: the server hides the one field "value", not the fields within it."""
    return value if isinstance(value, dict) and value else HIDDEN


ROUTES = (
    Route("POST", "/block_types/filter", find_types),
    Route("GET", "/block_types/slug/{slug}", read_type),
    Route("GET", "/block_types/slug/{slug}/block_documents", find_of_type),
    Route("GET", "/block_types/slug/{slug}/block_documents/name/{name}", read_by_name),
    Route("POST", "/block_schemas/filter", find_schemas),
    Route("GET", "/block_schemas/checksum/{checksum}", read_schema),
    Route("POST", "/block_documents/", create, writes=True),
    Route("POST", "/block_documents/filter", find),
    Route("GET", "/block_documents/{id}", read),
    Route("PATCH", "/block_documents/{id}", update, writes=True),
    Route("DELETE", "/block_documents/{id}", delete, writes=True),
)
