/** Where data is and what has changed: map and diff. */
import { InvalidArgumentError } from 'commander';
import { parseSize } from '../../base/size-text.js';
import { formatBytes, PIB } from '../../base/units.js';
import type { ApiStream } from '../api-client.js';
import { toAnyName } from '../arguments.js';
import type { CommandRow, Context, FlagRow } from '../command-table.js';
import { CommandError } from '../failure.js';
import { formatCount } from '../figures.js';
import { extentItems } from '../json-items.js';
import { JSON_MEDIA } from '../routes.js';
import { ANY_NAME_ROW } from './rows.js';

/** Offsets and lengths: up to 1 PiB has 16 digits. */
const NUMBER_COLUMNS = 16;
/** Lines are printed when there are so many. */
const LINES = 500;

const map: CommandRow = {
  name: 'map',
  summary: 'Where a vdisk has data, zeros and holes, and how deep they lie',
  usage: 'NAME [--offset BYTES] [--length BYTES]',
  details:
    'DEPTH counts the trees between the vdisk and the one that has the data: 0 is its own. ' +
    'FILLED was put there by a split.',
  arguments: [ANY_NAME_ROW],
  flags: [rangeFlag('offset', 'from this byte on'), rangeFlag('length', 'so many bytes')],
  examples: ['keiki map web1', 'keiki map web1 --offset 1G --length 64M --json'],
  run: async (context, { arguments: [given], flags }) => {
    const query = {
      ...(flags.offset === undefined ? {} : { offset: flags.offset as number }),
      ...(flags.length === undefined ? {} : { length: flags.length as number }),
    };
    const ask = { params: { name: given as string }, query };
    const stream = await context.api.stream('mapVdisk', ask, JSON_MEDIA);
    await printExtents(context, stream, ['DEPTH', 'FILLED'], ({ depth, filled }) => [
      String(depth).padStart(5),
      filled === true ? 'filled' : '',
    ]);
    return undefined;
  },
};

const diff: CommandRow = {
  name: 'diff',
  summary: 'What changed from one snapshot to another, or since the beginning',
  usage: '[FROM] TO',
  details: 'KIND zero: what was there has been zeroed or trimmed.',
  arguments: [
    {
      name: 'NAME',
      summary: 'the older one, if there is one, and the newer one',
      completes: 'any-name',
      isMany: true,
      parse: toAnyName,
    },
  ],
  flags: [],
  examples: ['keiki diff golden@v1 golden@v2', 'keiki diff golden@v2 golden --json'],
  run: async (context, { arguments: [names] }) => {
    const given = names as string[];
    const [to, from] = given.toReversed();
    if (to === undefined || given.length > 2) {
      throw new CommandError('usage', `diff takes one or two names, not ${given.length}`);
    }
    const query = from === undefined ? { to } : { from, to };
    const stream = await context.api.stream('diff', { query }, JSON_MEDIA);
    await printExtents(context, stream, [], () => []);
    return undefined;
  },
};

function rangeFlag(name: string, summary: string): FlagRow {
  return { name, takes: 'BYTES', completes: 'nothing', summary, parse: toRangeBytes };
}

function toRangeBytes(text: string): number {
  const bytes = parseSize(text);
  if (bytes !== undefined && bytes <= PIB) return bytes;
  throw new InvalidArgumentError('A number of bytes, or as 64M, up to 1 PiB.');
}

interface Item {
  readonly offset: number;
  readonly length: number;
  readonly kind: string;
  readonly depth?: number;
  readonly filled?: boolean;
}

async function printExtents(
  context: Context,
  stream: ApiStream,
  titles: readonly string[],
  cellsOf: (item: Item) => readonly string[],
): Promise<void> {
  const { output } = context;
  if (context.isJson) {
    for await (const chunk of stream.chunks) await output.printBytes(chunk);
    return;
  }
  const toLine = (offset: string, length: string, cells: readonly string[]): string =>
    [offset.padStart(NUMBER_COLUMNS), length.padStart(NUMBER_COLUMNS), ...cells]
      .join('  ')
      .trimEnd();
  let lines = [output.style('bold', toLine('OFFSET', 'LENGTH', ['KIND', ...titles]))];
  const sums = new Map<string, number>();
  let count = 0;
  for await (const each of extentItems(stream.chunks)) {
    const item = each as Item;
    const cells = [item.kind.padEnd(4), ...cellsOf(item)];
    lines.push(toLine(String(item.offset), String(item.length), cells));
    sums.set(item.kind, (sums.get(item.kind) ?? 0) + item.length);
    count++;
    if (lines.length < LINES) continue;
    await output.print(lines.join('\n'));
    lines = [];
  }
  const parts = [...sums].map(([kind, bytes]) => `${formatBytes(bytes)} ${kind}`);
  const sum = [formatCount(count, 'extent'), ...parts].join(', ');
  await output.print([...lines, sum].join('\n'));
}

export const EXTENT_COMMANDS: readonly CommandRow[] = [map, diff];
