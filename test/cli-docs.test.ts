/** docs/CLI.md and the table of commands know the same. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { CommandRow, FlagRow } from '../src/cli/command-table.js';
import { EXIT_CODES } from '../src/cli/failure.js';
import { GLOBAL_FLAGS } from '../src/cli/global-flags.js';
import { COMMANDS } from '../src/cli/program.js';

const TEXT = readFileSync(new URL('../docs/CLI.md', import.meta.url), 'utf8');

function between(from: string, to: string): string {
  const [, rest] = TEXT.split(from);
  const [part, after] = rest?.split(to) ?? [];
  assert.ok(after !== undefined, `docs/CLI.md has ${from} and ${to}`);
  return part?.trim() ?? '';
}

const inCell = (text: string): string => text.replaceAll('|', '\\|');

function flagsTable(flags: readonly FlagRow[]): string {
  const rows = flags.map(({ name, short, takes, summary, fallback, choices, isRequired }) => {
    const written = `${short === undefined ? '' : `-${short}, `}--${name}`;
    const value = choices?.join('|') ?? takes;
    const more = [
      ...(isRequired === true ? ['has to be given'] : []),
      ...(fallback === undefined ? [] : [`default ${fallback}`]),
    ].map((text) => `; ${text}`);
    const cell = `\`${written}${value === undefined ? '' : ` ${value}`}\``;
    return `| ${inCell(cell)} | ${inCell(summary)}${more.join('')} |`;
  });
  return ['| flag | meaning |', '| --- | --- |', ...rows].join('\n');
}

/** The flags of the server are the settings, and have a page of their own. */
const SETTINGS = 'Its flags are the settings: see [CONFIGURATION](CONFIGURATION.md).';

function section(row: CommandRow): string {
  const { name, usage, summary, details, flags, examples } = row;
  const text = details === undefined ? `${summary}.` : `${summary}. ${details}`;
  return [
    `### ${name}`,
    `\`\`\`text\n${`keiki ${name} ${usage}`.trimEnd()}\n\`\`\``,
    text,
    ...(name === 'serve' ? [SETTINGS] : flags.length === 0 ? [] : [flagsTable(flags)]),
    `\`\`\`sh\n${examples.join('\n')}\n\`\`\``,
  ].join('\n\n');
}

test('docs/CLI.md lists every command with its flags, as help texts do', () => {
  // Paste what is expected when a command has changed.
  const expected = COMMANDS.map(section).join('\n\n');
  assert.equal(between('<!-- commands -->', '<!-- end of commands -->'), expected);
  assert.equal(
    between('<!-- global flags -->', '<!-- end of global flags -->'),
    flagsTable(GLOBAL_FLAGS),
  );
});

test('docs/CLI.md lists every exit code, with the kinds that end with it', () => {
  const rows = [...TEXT.matchAll(/^\| ([0-9]+) \| (.*?) \| .+ \|$/gm)].map(
    ([, code, kinds]) => [Number(code), kinds] as const,
  );
  const kindsOf = new Map<number, string[]>([[0, []]]);
  for (const [kind, code] of Object.entries(EXIT_CODES)) {
    kindsOf.set(code, [...(kindsOf.get(code) ?? []), `\`${kind}\``]);
  }
  const expected = [...kindsOf].map(([code, kinds]) => [code, kinds.join(', ') || 'none']);
  assert.deepEqual(rows, expected);
});
