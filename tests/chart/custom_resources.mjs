// Say what custom resources have wrong, by their projects' own types and schemas.
//
//   node custom_resources.mjs FOLDER < objects.json
//
// FOLDER is where `make chart-tools` installs the schemas. Each object is looked at twice: the validator says which value is of no right form or is missing; the
// compiler, which reads the object as a literal of its type, says which field is not known, as the API server's strict decoding would.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

const folder = process.argv[2];
const ts = createRequire(join(folder, "package.json"))("typescript");
const found = [];
const literals = [];

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const home = PACKAGES[object.apiVersion.split("/")[0]];
  const name = `${object.kind} ${object.metadata?.name}`;
  const module = `@kubernetes-models/${home}/${object.apiVersion}/${object.kind}`;
  let model;
  try {
    model = (await import(pathToFileURL(join(folder, "node_modules", `${module}.js`))))[object.kind];
  } catch {
    found.push(`${name}: nobody publishes ${object.kind} of ${object.apiVersion}`);
    continue;
  }
  try {
    new model(object).validate();
  } catch (error) {
    found.push(`${name}: ${error.message}`);
  }
  literals.push([name, `import type { I${object.kind} } from "${module}";\nexport const object: I${object.kind} = ${JSON.stringify(object)};\n`]);
}

const options = { strict: true, noEmit: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022, types: [] };
const host = ts.createCompilerHost(options);
const files = new Map(literals.map(([name, text], index) => [join(folder, `object-${index}.mts`), { name, text }]));
const { fileExists, readFile, getSourceFile } = host;
host.fileExists = (path) => files.has(path) || fileExists(path);
host.readFile = (path) => files.get(path)?.text ?? readFile(path);
host.getSourceFile = (path, ...rest) =>
  files.has(path) ? ts.createSourceFile(path, files.get(path).text, ts.ScriptTarget.ES2022) : getSourceFile(path, ...rest);
for (const one of ts.getPreEmitDiagnostics(ts.createProgram([...files.keys()], options, host))) {
  found.push(`${files.get(one.file?.fileName)?.name}: ${ts.flattenDiagnosticMessageText(one.messageText, " ")}`);
}
process.stdout.write(JSON.stringify(found));
