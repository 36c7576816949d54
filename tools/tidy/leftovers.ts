/**
 * What must not be committed: unfinished marks, tests switched off, and traces of the machine that
 * the project was written on. The patterns are put together from pieces, so that they do not find
 * themselves.
 */
import { isTest, lineRule, type Rule } from './source-file.js';

const everywhere = (): boolean => true;

const MARK = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'].join('|')})\\b`);
const marks = lineRule('marks', everywhere, (line) => {
  const found = MARK.exec(line);
  return found === null ? undefined : `${found[0]}: finish it, or say why it is as it is`;
});

/** Tests that may be left out where the machine cannot run them. A missing tool is no reason. */
const MAY_SKIP: readonly { readonly path: string; readonly reason: string }[] = [
  {
    path: 'test/contract/device.test.ts',
    reason: 'a loop device needs root and a kernel with them',
  },
  {
    path: 'test/conformance/daemon/file-systems.test.ts',
    reason: 'to mount a file system needs root; CI has it',
  },
  {
    path: 'test/power-cut/power-cut.test.ts',
    reason: 'to trace a process may be forbidden in a container; CI may',
  },
];

const switchedOff = lineRule('switched-off', isTest, (line, path) => {
  if (MAY_SKIP.some((file) => file.path === path)) return undefined;
  const call = /\b(it|test|describe|suite|t|context)\.(only|skip|todo)\(/.exec(line);
  const option = /\b(only|skip|todo):\s*(true|['"`])/.exec(line);
  const found = call ?? option;
  if (found === null) return undefined;
  return `${found[0]}: every test runs, always; a missing tool fails`;
});

const HOME = new RegExp(
  `(?<![\\w.~$})*-])/(${['work', 'root', 'home'].join('|')})(?=/|\\s|['"\`]|$)`,
);
const machinePaths = lineRule('machine-paths', everywhere, (line) => {
  const found = HOME.exec(line) ?? /(?<![\w/])\.\.\/shared(?![\w-])/.exec(line);
  return found === null ? undefined : `${found[0]}: a path of one machine`;
});

const HOSTS = /\b(registry\.[a-z]+|(deb|security)\.debian\.org)\b|_auth[T]oken|"resolved"\s*:/;
const registryHosts = lineRule('registry-hosts', everywhere, (line) => {
  const found = HOSTS.exec(line);
  return found === null
    ? undefined
    : `${found[0]}: where packages come from is the machine's matter`;
});

export const leftoverRules: readonly Rule[] = [marks, switchedOff, machinePaths, registryHosts];
