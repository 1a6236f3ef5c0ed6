"use strict";
// Lists the routes of openapi.json with what they take.

const routes = document.getElementById("routes");

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function written(schema, all, depth = 0) {
  if (schema.$ref) return written(all[schema.$ref.split("/").pop()], all, depth);
  if (schema.anyOf) return schema.anyOf.filter((one) => one.type !== "null").map((one) => written(one, all, depth)).join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (schema.type === "array") return `[${schema.items ? written(schema.items, all, depth) : ""}, ...]`;
  if (schema.properties && depth < 3) {
    const inside = "  ".repeat(depth + 1);
    const required = schema.required || [];
    const lines = Object.entries(schema.properties).map(([name, one]) => {
      const fallback = one.default !== undefined && one.default !== null ? ` = ${JSON.stringify(one.default)}` : "";
      return `${inside}"${name}"${required.includes(name) ? "" : "?"}: ${written(one, all, depth + 1)}${fallback}`;
    });
    return `{\n${lines.join(",\n")}\n${"  ".repeat(depth)}}`;
  }
  return schema.type || "any";
}

function pattern(schema, all) {
  const made = element("pre", written(schema, all));
  made.tabIndex = 0; // so that the keyboard reaches what is wider than the window
  return made;
}

fetch("openapi.json").then((answer) => answer.json()).then((api) => {
  const all = api.components.schemas;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const section = element("section", "");
      section.append(element("h2", `${method.toUpperCase()} ${path}`), element("p", route.description || route.summary));
      const body = route.requestBody?.content?.["application/json"]?.schema;
      if (body) section.append(pattern(body, all));
      for (const parameter of route.parameters || []) {
        section.append(element("p", `${parameter.in} ${parameter.name}: ${written(parameter.schema, all)}`));
      }
      const answer = route.responses?.["200"]?.content?.["application/json"]?.schema;
      if (answer) section.append(element("p", "Answer:", "note"), pattern(answer, all));
      routes.append(section);
    }
  }
});
