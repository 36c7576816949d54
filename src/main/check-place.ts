/** The offline check of a store by its address, as the command line has it. */
import { openFileDevice } from '../env/file-device.js';
import type { CheckReport } from '../store/check/check-report.js';
import { checkStore } from './check.js';
import { type ConfigSources, readSettings } from './config.js';
import { openObjects } from './object-place.js';
import { parseStoreAddress } from './store-address.js';

export interface CheckPlaceOptions extends Omit<ConfigSources, 'file'> {
  readonly repair: boolean;
  readonly skipData: boolean;
}

/** @throws {StoreError} invalid (no store there), not-found, in-use, unsupported, device */
export async function checkStoreAt(text: string, options: CheckPlaceOptions): Promise<CheckReport> {
  const { repair, skipData, flags, environment } = options;
  const address = parseStoreAddress(text);
  if (address.kind === 'file') {
    const device = await openFileDevice(address.path, { readOnly: !repair });
    try {
      return await checkStore({ kind: 'device', device }, { repair, skipData });
    } finally {
      await device.close();
    }
  }
  const settings = readSettings({ flags, environment, file: undefined });
  const { objects, prefix, close } = await openObjects(address, settings, environment);
  try {
    return await checkStore({ kind: 'objects', objects, prefix }, { repair, skipData });
  } finally {
    close();
  }
}
