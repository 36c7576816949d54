/**
 * The operating system, time and chance have one door: src/env. What goes round it cannot be
 * simulated, and a run from a seed is no longer the same run.
 *
 * 1. In src, only env/, main/ and cli/ touch files, processes, clocks, timers and randomness.
 * 2. Sockets are for env/, for what stands above vdisks (target/, control/), and for objects/.
 * 3. A test beside its code may use files, never time or chance: no test depends on when it runs.
 * 4. `null` is JSON's, and what an API of Node answers; our own absent value is `undefined`.
 */
import ts from 'typescript';
import { isTest, moduleNamedBy, type Rule, syntaxRule } from './source-file.js';

const FREE = ['src/env/', 'src/main/', 'src/cli/'];
const SOCKET_USERS = [...FREE, 'src/objects/', 'src/target/', 'src/control/'];

const TIME_AND_CHANCE = new Map([
  ['Date', 'take time from env/clock.ts'],
  ['performance', 'take time from env/clock.ts'],
  ['setTimeout', 'use Clock.setTimer of env/clock.ts'],
  ['setInterval', 'use Clock.setTimer of env/clock.ts'],
  ['randomBytes', 'take chance from env/random.ts'],
  ['randomUUID', 'take chance from env/random.ts'],
  ['randomInt', 'take chance from env/random.ts'],
  ['getRandomValues', 'take chance from env/random.ts'],
]);

const SYSTEM = new Map([
  ['setImmediate', 'use Clock.yield of env/clock.ts'],
  ['process', 'the process belongs to env/, main/ and cli/'],
  ['console', 'tell it to the LogSink of env/log-sink.ts'],
  ['globalThis', 'name the thing itself'],
]);

const TIME_MODULES = ['node:timers', 'node:timers/promises', 'node:perf_hooks'];
const SYSTEM_MODULES = [
  'node:fs',
  'node:fs/promises',
  'node:child_process',
  'node:process',
  'node:os',
  'node:worker_threads',
  'node:cluster',
];
const SOCKET_MODULES = ['node:net', 'node:tls', 'node:http', 'node:https', 'node:http2'];

const startsWithOneOf = (path: string, folders: readonly string[]): boolean =>
  folders.some((folder) => path.startsWith(folder));

const isGuarded = (path: string): boolean =>
  path.startsWith('src/') && !startsWithOneOf(path, FREE);

/** True where the identifier stands for a variable, not for a member or a label of its own. */
function isReference(piece: ts.Identifier): boolean {
  const around = piece.parent;
  if (ts.isPropertyAccessExpression(around)) return around.expression === piece;
  if (ts.isImportSpecifier(around)) return (around.propertyName ?? around.name) === piece;
  if (ts.isPropertyAssignment(around)) return around.initializer === piece;
  return !(
    ts.isMethodDeclaration(around) ||
    ts.isMethodSignature(around) ||
    ts.isPropertyDeclaration(around) ||
    ts.isPropertySignature(around) ||
    ts.isEnumMember(around)
  );
}

function isMathRandom(piece: ts.Node): boolean {
  return (
    ts.isPropertyAccessExpression(piece) &&
    piece.name.text === 'random' &&
    ts.isIdentifier(piece.expression) &&
    piece.expression.text === 'Math'
  );
}

/** `crypto.randomBytes(8)`: the member's name says enough. */
function isRandomMember(piece: ts.Identifier): boolean {
  return ts.isPropertyAccessExpression(piece.parent) && /^(random[A-Z]|getRandom)/.test(piece.text);
}

const calls = syntaxRule('calls', isGuarded, (piece, path) => {
  if (isMathRandom(piece)) return 'Math.random: take chance from env/random.ts';
  if (!ts.isIdentifier(piece)) return undefined;
  if (!isReference(piece) && !isRandomMember(piece)) return undefined;
  const instead =
    TIME_AND_CHANCE.get(piece.text) ?? (isTest(path) ? undefined : SYSTEM.get(piece.text));
  return instead === undefined ? undefined : `${piece.text}: ${instead}`;
});

const modules = syntaxRule(
  'modules',
  (path) => path.startsWith('src/'),
  (piece, path) => {
    const name = moduleNamedBy(piece);
    if (name === undefined) return undefined;
    if (isGuarded(path) && TIME_MODULES.includes(name)) return `${name}: use env/clock.ts`;
    if (isTest(path)) return undefined;
    if (isGuarded(path) && SYSTEM_MODULES.includes(name)) {
      return `${name}: only env/, main/ and cli/ reach the operating system`;
    }
    if (!startsWithOneOf(path, SOCKET_USERS) && SOCKET_MODULES.includes(name)) {
      return `${name}: sockets are for env/, objects/, target/, control/, main/ and cli/`;
    }
    return undefined;
  },
);

const COMPARISONS = new Set([
  ts.SyntaxKind.EqualsEqualsEqualsToken,
  ts.SyntaxKind.ExclamationEqualsEqualsToken,
]);

const nulls = syntaxRule(
  'null',
  (path) => path.startsWith('src/') && !path.startsWith('src/control/'),
  (piece) => {
    if (piece.kind !== ts.SyntaxKind.NullKeyword) return undefined;
    const around = piece.parent;
    if (ts.isBinaryExpression(around) && COMPARISONS.has(around.operatorToken.kind)) {
      return undefined;
    }
    return 'write undefined: null is only for JSON, and to compare with what Node answers';
  },
);

export const doorRules: readonly Rule[] = [calls, modules, nulls];
