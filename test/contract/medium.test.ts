import { MEDIUM_KINDS } from '../../sim/machine.js';
import { systemClock } from '../../src/env/system-clock.js';
import { openMedium, openNewMedium } from '../support/engines.js';
import { duplicate } from '../support/stores.js';
import { mediumContract } from './medium.js';

for (const kind of MEDIUM_KINDS) {
  mediumContract(kind, async () => {
    const { medium, source } = await openNewMedium(kind, systemClock);
    return { medium, crashed: () => openMedium(duplicate(source)) };
  });
}
