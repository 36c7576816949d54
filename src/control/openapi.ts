/** The OpenAPI 3.1 document, from the operations and schemas that the server itself goes by. */
import type { TSchema } from 'typebox';
import { IDEMPOTENCY_KEY_HEADER, JSON_TYPE, OPERATIONS, type Operation } from './operations.js';
import { KINDS_OF_PROBLEM, PROBLEM_TYPE } from './problem.js';
import { COMPONENTS, type ProblemKind } from './schemas.js';

type Json = Readonly<Record<string, unknown>>;

const NAMES = new Map<unknown, string>(
  Object.entries(COMPONENTS).map(([name, schema]) => [schema, name]),
);

export function openapiDocument(version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const [id, operation] of Object.entries<Operation>(OPERATIONS)) {
    paths[operation.path] ??= {};
    const item = paths[operation.path] as Record<string, Json>;
    item[operation.method.toLowerCase()] = toOperation(id, operation);
  }
  const schemas = Object.entries(COMPONENTS).map(([name, schema]) => [name, toJson(schema, true)]);
  return {
    openapi: '3.1.0',
    info: {
      title: 'Keiki control API',
      version,
      description: 'Virtual disks, snapshots, clones and splits of one store.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: [{ token: [] }, {}],
    paths,
    components: {
      schemas: Object.fromEntries(schemas) as Json,
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'On TCP; not on a unix socket' },
      },
    },
  };
}

function toOperation(id: string, operation: Operation): Json {
  const { params, query, body, takes } = operation;
  const parameters = [...toParameters(params, 'path'), ...toParameters(query, 'query')];
  if (operation.isIdempotent === true) {
    parameters.push({
      name: IDEMPOTENCY_KEY_HEADER,
      in: 'header',
      description: 'The same key and request get the same answer, without a second act',
      schema: { type: 'string', maxLength: 200 },
    });
  }
  const types = body === undefined ? takes : [JSON_TYPE];
  return {
    operationId: id,
    summary: operation.summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(types === undefined
      ? {}
      : { requestBody: { required: body !== undefined, content: toContent(types, body) } }),
    responses: toResponses(operation),
    ...(operation.path === '/healthz' ? { security: [{}] } : {}),
  };
}

function toParameters(schema: TSchema | undefined, place: 'path' | 'query'): Json[] {
  const { properties = {}, required = [] } = (schema ?? {}) as {
    properties?: Readonly<Record<string, Json>>;
    required?: readonly string[];
  };
  return Object.entries(properties).map(([name, property]) => {
    const { description, examples } = property as { description?: string; examples?: unknown[] };
    return {
      name,
      in: place,
      required: required.includes(name),
      ...(description === undefined ? {} : { description }),
      ...(examples === undefined ? {} : { example: examples[0] }),
      schema: toJson(property, true),
    };
  });
}

function toResponses(operation: Operation): Json {
  const { status, answer, gives, problems } = operation;
  const types = gives ?? (answer === undefined ? [] : [JSON_TYPE]);
  const responses: Record<string, Json> = {
    [status]: {
      description: 'As asked',
      ...(types.length === 0 ? {} : { content: toContent(types, answer) }),
    },
  };
  const kindsOfStatus = new Map<number, ProblemKind[]>();
  for (const kind of new Set<ProblemKind>(['invalid', 'unauthorized', ...problems])) {
    const { status: code } = KINDS_OF_PROBLEM[kind];
    kindsOfStatus.set(code, [...(kindsOfStatus.get(code) ?? []), kind]);
  }
  const content = toContent([PROBLEM_TYPE], COMPONENTS.Problem);
  for (const [code, kinds] of kindsOfStatus) {
    responses[code] = { description: kinds.join(', '), content };
  }
  responses.default = { description: 'Any other problem', content };
  return responses;
}

/** JSON types have the schema; what else is given has none. */
function toContent(types: readonly string[], schema: TSchema | undefined): Json {
  return Object.fromEntries(
    types.map((type) => [type, type.endsWith('json') && schema ? { schema: toJson(schema) } : {}]),
  );
}

/** A copy in which the schemas of COMPONENTS are named, but for the outermost if it is one. */
function toJson(value: unknown, isOutermost = false): unknown {
  const name = isOutermost ? undefined : NAMES.get(value);
  if (name !== undefined) return { $ref: `#/components/schemas/${name}` };
  if (Array.isArray(value)) return value.map((each) => toJson(each));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, toJson(each)]));
}
