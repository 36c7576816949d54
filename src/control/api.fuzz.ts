/**
 * Requests that nobody would send, for every operation, on a real store: no answer is a bug's, each
 * is what its operation says it may be, and the server lives on.
 *
 * Bodies, queries and names come from the schemas, whole or with one thing wrong; some are junk.
 */
import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import type { TSchema } from 'typebox';
import { ControlLab } from '../../test/support/control-lab.js';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';
import { JSON_TYPE, OPERATIONS, type Operation } from './operations.js';
import { PROBLEM_TYPE } from './problem.js';
import { Problem } from './schemas.js';

const REQUESTS = 400;

const NAMES = ['golden', 'golden@v1', 'c1', 'c2', 'split-1', 'x', 'x@y', '_keiki.x'];
const JUNK: readonly unknown[] = [
  null,
  true,
  -1,
  0.5,
  1e300,
  2 ** 53,
  '',
  '..',
  '\0',
  'é',
  '💾'.repeat(200),
  'a'.repeat(5000),
  '__proto__',
  [],
  [[[]]],
  {},
  { name: 'x', constructor: 1 },
];

interface Schema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
}

function pick<T>(random: Random, items: readonly T[]): T {
  return items[random.below(items.length)] as T;
}

/** A value that the schema may like. */
function valueFor(random: Random, schema: Schema): unknown {
  if (random.chance(0.03)) return pick(random, JUNK);
  if (schema.enum !== undefined) return pick(random, schema.enum);
  if (schema.anyOf !== undefined) return valueFor(random, pick(random, schema.anyOf));
  switch (schema.type) {
    case 'object': {
      const entries = Object.entries(schema.properties ?? {}).filter(
        ([key]) => schema.required?.includes(key) === true || random.chance(0.5),
      );
      const object = Object.fromEntries(
        entries.map(([key, each]) => [key, valueFor(random, each)]),
      );
      return random.chance(0.05) ? { ...object, extra: pick(random, JUNK) } : object;
    }
    case 'array':
      return Array.from({ length: random.below(4) }, () => valueFor(random, schema.items ?? {}));
    case 'integer': {
      const { minimum = 0, maximum = 2 ** 50 } = schema;
      const near = pick(random, [minimum, maximum, 4096, 1024 * 1024, random.below(2 ** 50)]);
      return random.chance(0.1) ? near - 1 : near;
    }
    default:
      return schema.pattern?.startsWith('^/') === true ? '/no/such/folder/s' : pick(random, NAMES);
  }
}

function pathOf(random: Random, operation: Operation): string {
  const path = operation.path.replace(/\{[a-z]+\}/, () => {
    const value = random.chance(0.1) ? String(pick(random, JUNK)) : pick(random, NAMES);
    return encodeURIComponent(value);
  });
  const { properties = {} } = (operation.query ?? {}) as Schema;
  const query = new URLSearchParams();
  for (const [key, schema] of Object.entries(properties)) {
    if (random.chance(0.6)) query.append(key, String(valueFor(random, schema)));
  }
  if (random.chance(0.03)) query.append('extra', '1');
  return query.size === 0 ? path : `${path}?${query}`;
}

function bodyOf(random: Random, operation: Operation): Buffer | undefined {
  if (operation.takes !== undefined) return Buffer.alloc(random.below(20_000), random.below(3));
  if (operation.body === undefined) return undefined;
  const body = Buffer.from(JSON.stringify(valueFor(random, operation.body as Schema)));
  if (random.chance(0.9) || body.length === 0) return body;
  const at = random.below(body.length);
  body[at] = random.below(256);
  return random.chance(0.5) ? body : body.subarray(0, at);
}

/** A client of these goes when it takes too long: reading a pebibyte does. */
const READS_ALL: readonly Operation[] = [OPERATIONS.hashVdisk, OPERATIONS.verifyVdisk];
const PATIENCE_MS = 100;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

function send(
  lab: ControlLab,
  operation: Operation,
  path: string,
  body: Buffer | undefined,
): Promise<Answer | undefined> {
  const type = operation.takes?.[0] ?? JSON_TYPE;
  const headers = body === undefined ? {} : { 'content-type': type };
  return new Promise((resolve, reject) => {
    const options = { socketPath: lab.apiPath, method: operation.method, path, headers };
    const request = httpRequest(options, (response) => {
      const { statusCode: status = 0 } = response;
      const answerType = response.headers['content-type'] ?? '';
      text(response).then((all) => resolve({ status, type: answerType, text: all }), reject);
    });
    if (READS_ALL.includes(operation)) {
      request.setTimeout(PATIENCE_MS, () => {
        resolve(undefined);
        request.destroy();
      });
    }
    request.on('error', reject);
    request.end(body);
  });
}

for (const seed of fuzzSeeds(2)) {
  test(`requests from seed ${seed}`, async () => {
    const random = seededRandom(seed);
    const ajv = new Ajv({ strict: false });
    const lab = await ControlLab.start();
    const check = (schema: TSchema, answer: Answer, what: string): void => {
      assert.ok(ajv.validate(schema, JSON.parse(answer.text)), `${what}: ${ajv.errorsText()}`);
    };
    const operations = Object.values<Operation>(OPERATIONS);
    const create = { name: 'golden', sizeBytes: 2 ** 50 };
    await lab.call('POST', '/v1/vdisks', { body: create });
    for (let count = 0; count < REQUESTS; count++) {
      const operation = pick(random, operations);
      const path = pathOf(random, operation);
      const body = bodyOf(random, operation);
      const answer = await send(lab, operation, path, body);
      if (answer === undefined) continue;
      const { status } = answer;
      const sent = body?.subarray(0, 200).toString() ?? '';
      const what = `${operation.method} ${path} ${sent}: ${status}`;
      // The store is small: that it is full is no bug.
      assert.ok(status < 500 || status === 507, `${what} ${answer.text}`);
      if (status >= 400) {
        assert.equal(answer.type, PROBLEM_TYPE, what);
        check(Problem, answer, what);
      } else {
        assert.equal(status, operation.status, what);
        if (operation.answer !== undefined) check(operation.answer, answer, what);
      }
    }
    assert.deepEqual(lab.bugs, []);
    await lab.close();
  });
}
