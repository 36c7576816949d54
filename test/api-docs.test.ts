/** docs/API.md, the OpenAPI document and the routes of the control API know the same. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { STORE_ERROR_KINDS } from '../src/base/store-error.js';
import { openapiDocument } from '../src/control/openapi.js';
import { OPERATIONS, type Operation } from '../src/control/operations.js';
import { KINDS_OF_PROBLEM } from '../src/control/problem.js';
import { matchRoute } from '../src/control/router.js';
import { EVENT_TYPES, PROBLEM_KINDS } from '../src/control/schemas.js';

const TEXT = readFileSync(new URL('../docs/API.md', import.meta.url), 'utf8');

function tableBehind(mark: string): string {
  return TEXT.split(mark)[1]?.trimStart().split('\n\n')[0] ?? '';
}

/** What the table of operations must be; paste it when an operation has changed. */
function operationsTable(): string {
  const rows = Object.values<Operation>(OPERATIONS).map(
    ({ method, path, status, summary }) => `| \`${method} ${path}\` | ${status} | ${summary} |`,
  );
  return ['| operation | answer | what it does |', '| --- | --- | --- |', ...rows].join('\n');
}

function problemsTable(): string {
  const rows = PROBLEM_KINDS.map((kind) => {
    const { status, title } = KINDS_OF_PROBLEM[kind];
    return `| \`${kind}\` | ${status} | ${title} |`;
  });
  return ['| kind | status | meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

test('docs/API.md lists every operation, problem and type of event', () => {
  assert.equal(tableBehind('<!-- operations -->'), operationsTable());
  assert.equal(tableBehind('<!-- problems -->'), problemsTable());
  const events = [...tableBehind('<!-- events -->').matchAll(/^\| `([a-z-]+)` \|/gm)];
  assert.deepEqual(
    events.map((found) => found[1]),
    EVENT_TYPES,
  );
});

test('every kind of error of the store is a problem, and no status is one of success', () => {
  for (const kind of STORE_ERROR_KINDS) assert.ok(kind in KINDS_OF_PROBLEM);
  for (const { status } of Object.values(KINDS_OF_PROBLEM)) assert.ok(status >= 400);
});

test('the OpenAPI document has every operation, and nothing that leads nowhere', () => {
  const document = JSON.parse(JSON.stringify(openapiDocument('1.2.3'))) as {
    paths: Record<string, Record<string, { operationId: string; parameters?: { name: string }[] }>>;
    components: { schemas: Record<string, unknown> };
  };
  const described = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, { operationId }]) => [operationId, method, path]),
  );
  const wanted = Object.entries<Operation>(OPERATIONS).map(([id, { method, path }]) => [
    id,
    method.toLowerCase(),
    path,
  ]);
  assert.deepEqual(described.sort(), wanted.sort());
  const text = JSON.stringify(document);
  for (const [, name] of text.matchAll(/"\$ref":"#\/components\/schemas\/([A-Za-z]+)"/g)) {
    assert.ok(name !== undefined && name in document.components.schemas, `${name}`);
  }
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [, name] of path.matchAll(/\{([a-z]+)\}/g)) {
      for (const { parameters = [] } of Object.values(item)) {
        assert.ok(
          parameters.some((parameter) => parameter.name === name),
          path,
        );
      }
    }
  }
});

test('every operation is found by its own path, and by no other method', () => {
  for (const [id, { method, path }] of Object.entries<Operation>(OPERATIONS)) {
    const match = matchRoute(method, path.replace(/\{[a-z]+\}/, 'a%40b'));
    assert.equal(match.kind, 'found');
    if (match.kind !== 'found') continue;
    assert.equal(match.id, id);
    assert.deepEqual(Object.values(match.params), path.includes('{') ? ['a@b'] : []);
    assert.equal(matchRoute('TRACE', path.replace(/\{[a-z]+\}/, 'x')).kind, 'method');
  }
});
