"""Descriptor look-ups with the types they really have; protobuf's stubs make everything optional."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message


def descriptor_of(message: Message) -> Descriptor:
    return cast(Descriptor, message.DESCRIPTOR)


def message_type(field: FieldDescriptor) -> Descriptor:
    """The type of a message field."""
    return cast(Descriptor, field.message_type)


def enum_type(field: FieldDescriptor) -> EnumDescriptor:
    """The type of an enum field."""
    return cast(EnumDescriptor, field.enum_type)


def is_message(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE


def is_map(field: FieldDescriptor) -> bool:
    return is_message(field) and field.is_repeated and bool(message_type(field).GetOptions().map_entry)


def field_named(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """The field of that proto name."""
    found: FieldDescriptor | None = descriptor.fields_by_name.get(name)
    return found


def option(options: Any, extension: Any) -> Any:
    """The value of an extension in a descriptor's options, its default where it is not set."""
    return options.Extensions[extension]
