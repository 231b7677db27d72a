/** A real Chromium with a profile of its own, and a record of everything a page should not do. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

const usualPlaces = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

const given = process.env.FASTMQA_CHROMIUM;

/** FASTMQA_CHROMIUM and nothing else if it is set, or else where distributions put it. */
export const chromiumPath = (given ? [given] : usualPlaces).find((path) => existsSync(path));

export const noChromium =
  'no Chromium found: install it (Debian: apt install chromium) or set FASTMQA_CHROMIUM to its path';

/**
 * FASTMQA_LAZY_WINDOW=300: whatever a page puts off (a frame, a task, a timer, a measured size, an answer of the host) comes as many
 * milliseconds late. A test that reads before it waits then fails every time, not once in a thousand runs.
 */
const lateness = Number(process.env.FASTMQA_LAZY_WINDOW ?? 0);
const lazy = `{
  const later = (work) => setTimer(work, ${lateness});
  const setTimer = window.setTimeout;
  window.setTimeout = (work, milliseconds = 0, ...given) => setTimer(work, milliseconds + ${lateness}, ...given);
  const { postMessage } = MessagePort.prototype;
  MessagePort.prototype.postMessage = function (...given) { later(() => postMessage.apply(this, given)); };
  const nextFrame = window.requestAnimationFrame;
  window.requestAnimationFrame = (work) => nextFrame(() => later(() => nextFrame(work)));
  const Observer = window.ResizeObserver;
  window.ResizeObserver = class extends Observer {
    constructor(work) { super((...given) => later(() => work(...given))); }
  };
  const { addEventListener } = EventSource.prototype;
  EventSource.prototype.addEventListener = function (type, hear) {
    addEventListener.call(this, type, (event) => later(() => hear(event)));
  };
  const ask = window.fetch;
  window.fetch = (...given) => ask(...given).then((answer) => new Promise((resolve) => later(() => resolve(answer))));
}`;

export async function openBrowser(
  profileFolder: string,
  size: { width: number; height: number },
): Promise<BrowserContext> {
  if (chromiumPath === undefined) throw new Error(noChromium);
  const browser = await chromium.launchPersistentContext(profileFolder, {
    executablePath: chromiumPath,
    headless: true,
    viewport: size,
    args: [
      '--no-sandbox', // tests run as root in containers; the app itself never asks for this
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  if (lateness > 0) await browser.addInitScript(lazy);
  return browser;
}

export interface Watched {
  /** Console errors and warnings, uncaught exceptions. */
  readonly complaints: string[];
  /** Requests to anything but the app itself. */
  readonly foreign: string[];
  /** Layout shifts that no input explains, each with what moved. */
  layoutShifts(): Promise<string[]>;
}

export async function watch(page: Page, origin: string): Promise<Watched> {
  const complaints: string[] = [];
  const foreign: string[] = [];
  page.setDefaultTimeout(lateness > 0 ? 20_000 : 120_000); // a page that a busy machine starves is not broken
  page.on('console', (message) => {
    // Mantine's word for a menu that was left before it had taken the focus.
    if (message.text().includes('use-focus-trap')) return;
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(data|blob):/.test(url)) foreign.push(url);
  });
  // Chromium excuses what moves within half a second of an input; where its own timers or the host come late, so does the answer to one.
  await page.addInitScript(`
    let [input, late, last] = [-1e9, 0, performance.now()];
    for (const type of ['pointerdown', 'pointermove', 'keydown', 'input'])
      addEventListener(type, ({ timeStamp }) => { input = timeStamp; }, true);
    setInterval(() => {
      late = Math.max(0.99 * late, performance.now() - last - 50);
      last = performance.now();
    }, 50);
    const isAnswer = (at) => at - input <= 500 + 4 * late;
    const ask = window.fetch;
    window.fetch = async (...given) => {
      const isAsked = isAnswer(performance.now());
      const answer = await ask(...given);
      if (isAsked) input = performance.now();
      return answer;
    };
    window.layoutShifts = [];
    new PerformanceObserver((list) => {
      for (const { hadRecentInput, startTime, value, sources } of list.getEntries()) {
        const moved = sources.map(({ node }) => node?.className || node?.textContent?.slice(0, 40) || node?.nodeName).join(', ');
        if (!hadRecentInput && !isAnswer(startTime)) window.layoutShifts.push(value.toFixed(4) + ' ' + moved);
      }
    }).observe({ type: 'layout-shift', buffered: true });
  `);
  return { complaints, foreign, layoutShifts: () => page.evaluate('window.layoutShifts') };
}

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What axe calls serious or critical, each with the first element it names. */
export async function seriousFindings(page: Page): Promise<string[]> {
  // Colours that fade from one theme to the other are neither.
  await page.waitForTimeout(50);
  await page.evaluate(
    'Promise.allSettled(document.getAnimations().map(({ finished }) => finished)).then(() => undefined)',
  );
  await page.evaluate(axe);
  const found: { id: string; impact: string; help: string; nodes: { html: string }[] }[] = await page.evaluate(
    'axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations)',
  );
  return found
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}
