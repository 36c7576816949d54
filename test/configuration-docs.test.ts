/** docs/CONFIGURATION.md lists every setting of the server as the server knows it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readSettings } from '../src/main/config.js';
import {
  describeFallback,
  describeKind,
  flagOf,
  SETTING_KEYS,
  SETTINGS,
  variableOf,
} from '../src/main/settings.js';

const TEXT = readFileSync(new URL('../docs/CONFIGURATION.md', import.meta.url), 'utf8');

/** What the table must be; paste it when a setting has changed. */
function settingsTable(): string {
  const rows = SETTING_KEYS.map((key) => {
    const setting = SETTINGS[key];
    const names = `\`--${flagOf(key)}\`, \`${variableOf(key)}\``;
    const values = `${describeKind(setting)} | ${describeFallback(setting)}`;
    return `| \`${key}\` | ${names} | ${values} | ${setting.summary} |`;
  });
  const head = ['| setting | flag, variable | takes | default | meaning |'];
  return [...head, '| --- | --- | --- | --- | --- |', ...rows].join('\n');
}

test('docs/CONFIGURATION.md lists every setting', () => {
  const table = TEXT.split('## Settings')[1]?.trimStart().split('\n\n')[0];
  assert.equal(table, settingsTable());
});

test('the example of docs/CONFIGURATION.md is a config file', () => {
  const text = /```toml\n([^`]*)```/.exec(TEXT)?.[1] ?? '';
  const file = { path: 'example.toml', text };
  const settings = readSettings({ flags: {}, environment: {}, file });
  assert.equal(settings['store.size'], 64 * 1024 ** 3);
  assert.deepEqual(settings['nbd.listen'], ['127.0.0.1:10809']);
});
