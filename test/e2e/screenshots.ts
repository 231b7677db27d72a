/**
 * Pictures of every screen in both themes and at both sizes, into `screenshots/`: to be looked at before a screen is called
 * done. Fails where axe finds something serious, or a page complains or asks for anything but the app. `npm run screenshots`
 * builds the window first; each of the files below can be started alone: `node test/run-program.mjs test/e2e/app-pictures.ts`.
 */
import { chromiumPath, noChromium } from './browser.ts';

if (chromiumPath) {
  await import('./app-pictures.ts');
  await import('./chart-pictures.ts');
  await import('./session-pictures.ts');
  await import('./fleet-pictures.ts');
} else process.stderr.write(`${noChromium}\n`);
