/** How log entries that belong together are spread over records. */
import { type LogEntry, logEntryBytes } from '../../layout/log-entry.js';
import { RECORD_ENTRY_BYTES_MAX } from '../../layout/log-record.js';

/** Groups units into what fits beside a full set of tags; a unit is never torn apart. */
export function splitUnits(units: readonly (readonly LogEntry[])[]): LogEntry[][] {
  const groups: LogEntry[][] = [];
  let group: LogEntry[] = [];
  let bytes = 0;
  for (const unit of units) {
    const size = unit.reduce((sum, entry) => sum + logEntryBytes(entry), 0);
    if (bytes + size > RECORD_ENTRY_BYTES_MAX && group.length > 0) {
      groups.push(group);
      group = [];
      bytes = 0;
    }
    group.push(...unit);
    bytes += size;
  }
  if (group.length > 0) groups.push(group);
  return groups;
}
