// Calls baxcloud.v1 over Twirp in protobuf with nothing but the generated descriptors; prints what came as JSON.
import { create, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { ProjectSchema, ProjectService } from "./generated/baxcloud/v1/project_pb.js";
import { ConversionJobSchema, VideoConversionService } from "./generated/baxcloud/v1/video_conversion_pb.js";

declare const process: { argv: string[] };

const [url, apiKey, project] = process.argv.slice(2);

async function call<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
): Promise<MessageShape<O>> {
  const answer = await fetch(`${url}/twirp/${method.parent.typeName}/${method.name}`, {
    method: "POST",
    headers: {
      "content-type": "application/protobuf",
      authorization: `Bearer ${apiKey}`,
      "x-project-id": project ?? "",
    },
    body: toBinary(method.input, create(method.input, request)),
  });
  if (!answer.ok) throw await answer.json();
  return fromBinary(method.output, new Uint8Array(await answer.arrayBuffer()));
}

const created = await call(VideoConversionService.method.createConversionJob, {
  inputUrl: "https://example.com/a.mp4",
  outputFormats: ["360p"],
  metadata: { kind: { case: "stringValue", value: "from TypeScript" } },
});
const found = await call(ProjectService.method.getProject, { projectId: project ?? "" });
const refused: unknown = await call(VideoConversionService.method.createConversionJob, {
  inputUrl: "https://example.com/a.mp4",
  hlsTime: 11,
}).catch((error: unknown) => error);
const told = { project: toJson(ProjectSchema, found), job: toJson(ConversionJobSchema, created), refused };
console.log(JSON.stringify(told));
