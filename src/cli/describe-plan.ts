/** The plan of a split in words for people. Pure. */
import { formatBytes } from '../base/units.js';
import type { SplitPlan } from '../control/schemas.js';
import { formatDuration, formatRate } from './figures.js';
import { formatTable } from './table.js';

type ModePlan = SplitPlan['modes'][number];

/** A line of facts, and under it a table with a column for each mode. */
export function formatSplitPlan(plan: SplitPlan, styleName: (name: string) => string): string {
  const { name, backing, basis, otherHolders, usedBytes, modes } = plan;
  const from = backing === null ? 'a backing store that was deleted' : backing;
  const how =
    basis === 'scan' ? 'by a scan of its metadata' : 'estimated from counters: at most so much';
  const lines: [string, (mode: ModePlan) => string][] = [
    ['reads', ({ readBytes }) => formatBytes(readBytes)],
    ['writes', writes],
    ['shares', ({ sharedBytes }) => formatBytes(sharedBytes)],
    ['indirect blocks', ({ indirectBlocks }) => String(indirectBlocks)],
    ['reference blocks', ({ referenceBlocks }) => String(referenceBlocks)],
    ['metadata written', ({ metaBytes }) => formatBytes(metaBytes)],
    ['store now', () => formatBytes(usedBytes)],
    ['store meanwhile', ({ usedBytesDuring }) => `at most ${formatBytes(usedBytesDuring)}`],
    ['store afterwards', afterwards],
    ['room for it', ({ fits }) => (fits ? 'yes' : 'no')],
    ...givesBack(plan),
    ['speed', ({ rateBytesPerSecond: rate }) => (rate === null ? 'not known' : formatRate(rate))],
    ['time', ({ seconds }) => (seconds === null ? 'not known' : formatDuration(seconds))],
  ];
  const columns = [{ title: '' }, ...modes.map(({ mode }) => ({ title: mode.toUpperCase() }))];
  const rows = lines.map(([label, cell]) => [label, ...modes.map(cell)]);
  const head = `${styleName(name)}: split from ${from}, ${how}`;
  const others =
    otherHolders.length === 0 ? [] : [`${from} is read by ${namesOf(otherHolders)}, too`];
  return [head, formatTable(columns, rows), ...others].join('\n');
}

function writes({ writeBytes, writeBytesMin }: ModePlan): string {
  const most = formatBytes(writeBytes);
  return writeBytes === writeBytesMin ? most : `${formatBytes(writeBytesMin)} to ${most}`;
}

function afterwards({ usedBytesAfter, writeBytes, writeBytesMin }: ModePlan): string {
  const most = formatBytes(usedBytesAfter);
  return writeBytes === writeBytesMin ? most : `at most ${most}`;
}

/** What deletions bring afterwards. */
function givesBack({ backing }: SplitPlan): [string, (mode: ModePlan) => string][] {
  const toText = (bytes: ModePlan['givesBackBytes']): string =>
    bytes === null ? 'not known' : formatBytes(bytes);
  const alone = ({ givesBackBytes }: ModePlan): string => toText(givesBackBytes);
  if (backing === null) return [['comes back', alone]];
  const [vdisk = backing] = backing.split('@');
  if (vdisk === backing) return [[`without ${backing}`, alone]];
  return [
    [`without ${backing}`, alone],
    [`without all of ${vdisk}`, ({ vdiskGivesBackBytes }) => toText(vdiskGivesBackBytes)],
  ];
}

const NAMES_SHOWN = 5;

function namesOf(names: readonly string[]): string {
  const more = names.length - NAMES_SHOWN;
  const shown = names.slice(0, NAMES_SHOWN).join(', ');
  return more > 0 ? `${shown} and ${more} more` : shown;
}
