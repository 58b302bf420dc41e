"use strict";
// Renders openapi.json. Everything is made with text nodes, so nothing in the description can become markup.

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// `code` in descriptions; the rest is plain text.
const prose = (text) =>
  (text || "").split("`").map((part, index) => (index % 2 ? element("code", { textContent: part }) : part));

const resolved = (document_, schema) => {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.slice(2).split("/").reduce((node, step) => node[step], document_);
};

const typeName = (schema) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `${typeName(schema.items || {})}[]`;
  if (schema.additionalProperties) return `map of ${typeName(schema.additionalProperties)}`;
  if (schema.contentMediaType) return "file";
  return schema.format === "date-time" ? "date-time" : schema.type || "any JSON";
};

const limits = (schema, description) => {
  const said = [];
  const listed = (values) => values.every((value) => description.includes(`\`${value}\``));
  if (schema.enum && !listed(schema.enum)) said.push(`one of ${schema.enum.join(", ")}`);
  if (schema.items && schema.items.enum && !listed(schema.items.enum)) said.push(`of ${schema.items.enum.join(", ")}`);
  if (schema.minimum !== undefined) said.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined) said.push(`≤ ${schema.maximum}`);
  if (schema.maxLength) said.push(`≤ ${schema.maxLength} characters`);
  return said.length ? ` (${said.join("; ")})` : "";
};

const row = (document_, name, schema, description, needed) =>
  element(
    "tr",
    {},
    element("td", {}, element("code", { textContent: name }), needed ? element("span", { className: "needed", textContent: " required" }) : ""),
    element("td", { textContent: typeName(schema) }),
    element("td", {}, ...prose(description), limits(schema, description), ...below(document_, schema)),
  );

// The fields of an object inside an object, folded.
const below = (document_, schema) => {
  const inner = schema.items || schema;
  if (!inner.$ref) return [];
  return [element("details", {}, element("summary", {}, element("code", { textContent: typeName(inner) })), fields(document_, inner))];
};

const fields = (document_, schema) => {
  const object = resolved(document_, schema);
  const needed = new Set(object.required || []);
  const rows = Object.entries(object.properties || {}).map(([name, one]) => row(document_, name, one, one.description || "", needed.has(name)));
  return rows.length ? element("table", {}, element("tbody", {}, ...rows)) : element("p", { textContent: typeName(schema) });
};

const example = (document_, schema) => {
  const object = resolved(document_, schema);
  if (object.enum) return object.enum.find((value) => !value.endsWith("_UNSPECIFIED"));
  if (object.type === "array") return [example(document_, object.items)];
  if (object.type === "integer" || object.type === "number") return object.minimum || 1;
  if (object.type === "boolean") return true;
  if (object.type !== "object") return "…";
  const needed = new Set(object.required || []);
  const pairs = Object.entries(object.properties || {}).filter(([name]) => needed.has(name));
  return Object.fromEntries(pairs.map(([name, one]) => [name, example(document_, one)]));
};

const curl = (document_, verb, path, operation) => {
  const lines = [`curl -X ${verb.toUpperCase()} "$BAX_URL${path}"`];
  const security = operation.security[0];
  lines.push(`-H "Authorization: Bearer ${security.adminToken ? "$BAX_ADMIN_TOKEN" : "$BAX_API_KEY"}"`);
  if (security.projectId) lines.push('-H "X-Project-Id: $BAX_PROJECT_ID"');
  const content = operation.requestBody && operation.requestBody.content;
  if (content && content["multipart/form-data"]) lines.push("-F video=@clip.mp4", "-F 'outputFormats=[\"360p\",\"720p\"]'");
  if (content && content["application/json"]) {
    lines.push('-H "Content-Type: application/json"', `-d '${JSON.stringify(example(document_, content["application/json"].schema))}'`);
  }
  return lines.join(" \\\n  ");
};

const success = (document_, operation) => {
  const [status, answer] = Object.entries(operation.responses)[0];
  const [kind, body] = Object.entries(answer.content || {})[0] || [];
  const parts = [element("h4", { textContent: `Answer ${status}${kind ? ` · ${kind}` : ""}` }), element("p", {}, ...prose(answer.description))];
  if (body && kind === "application/json") {
    const wrapped = body.schema.properties && body.schema.properties.data;
    const name = typeName(wrapped || body.schema);
    const title = wrapped ? `{"success": true, "data": ${name}}` : name;
    parts.push(element("details", {}, element("summary", {}, element("code", { textContent: title })), fields(document_, wrapped || body.schema)));
  }
  return parts;
};

const article = (document_, verb, path, operation) => {
  const made = element(
    "article",
    { id: operation.operationId },
    element("h3", { textContent: operation["x-rpc"].split("/")[1] }),
    element("p", { className: "route" }, element("span", { className: `verb ${verb}`, textContent: verb.toUpperCase() }), element("code", { textContent: path })),
    element("p", {}, ...prose(operation.description)),
  );
  if (operation.parameters) {
    const rows = operation.parameters.map((one) => row(document_, one.name, one.schema, `${one.description} In the ${one.in}.`, one.required));
    made.append(element("h4", { textContent: "Parameters" }), element("table", {}, element("tbody", {}, ...rows)));
  }
  for (const [kind, body] of Object.entries((operation.requestBody || {}).content || {})) {
    if (Object.keys(resolved(document_, body.schema).properties || {}).length) {
      made.append(element("h4", { textContent: `Body · ${kind}` }), fields(document_, body.schema));
    }
  }
  made.append(...success(document_, operation), element("pre", { textContent: curl(document_, verb, path, operation) }));
  return made;
};

const render = (document_) => {
  document.getElementById("about").textContent = document_.info.description;
  const index = document.getElementById("index");
  const methods = document.getElementById("methods");
  for (const tag of document_.tags) {
    const section = element("section", {}, element("h2", { textContent: tag.name }), element("p", {}, ...prose(tag.description)));
    index.append(element("h2", { textContent: tag.name }));
    for (const [path, verbs] of Object.entries(document_.paths)) {
      for (const [verb, operation] of Object.entries(verbs)) {
        if (!operation.tags.includes(tag.name)) continue;
        section.append(article(document_, verb, path, operation));
        index.append(element("a", { href: `#${operation.operationId}`, textContent: operation["x-rpc"].split("/")[1], title: `${verb.toUpperCase()} ${path}` }));
      }
    }
    methods.append(section);
  }
  document.querySelector("nav input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const link of index.querySelectorAll("a")) {
      link.hidden = !`${link.textContent} ${link.title}`.toLowerCase().includes(wanted);
    }
  });
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
};

fetch("openapi.json")
  .then((answer) => answer.json())
  .then(render)
  .catch((error) => document.getElementById("methods").append(element("p", { textContent: `openapi.json could not be read: ${error}` })));
