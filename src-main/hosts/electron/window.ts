/** The one window: sandboxed, bound to its own page, and back where it stood. */
import { app, BrowserWindow, type Rectangle, screen, type WebContents } from 'electron';
import { preloadScript } from '../folders.ts';
import type { Memory, Remembered } from './memory.ts';
import { appUrl, isAppUrl } from './page.ts';

const usualSize = { width: 1280, height: 800 };
const smallestSize = { width: 900, height: 600 };
/** Enough of the title bar to take hold of. */
const graspPixels = { width: 120, height: 40 };

export function openWindow(memory: Memory): BrowserWindow {
  const before = memory.now.window;
  const window = new BrowserWindow({
    ...placeOf(
      before,
      screen.getAllDisplays().map(({ workArea }) => workArea),
    ),
    minWidth: smallestSize.width,
    minHeight: smallestSize.height,
    title: 'FastMQA',
    show: false,
    webPreferences: {
      preload: preloadScript,
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
      nodeIntegrationInWorker: false,
      nodeIntegrationInSubFrames: false,
      webSecurity: true,
      allowRunningInsecureContent: false,
      experimentalFeatures: false,
      webviewTag: false,
      navigateOnDragDrop: false,
      spellcheck: false,
    },
  });
  if (before?.isMaximised) window.maximize();
  window.once('ready-to-show', () => window.show());
  window.webContents.on('render-process-gone', (_, { reason }) => {
    if (reason !== 'clean-exit') window.webContents.reload();
  });
  void window.loadURL(appUrl);
  return window;
}

/** Where it stands, for the next start. */
export function standOf(window: BrowserWindow): Remembered['window'] {
  const { x, y, width, height } = window.getNormalBounds();
  return { x, y, width, height, isMaximised: window.isMaximized() };
}

/** Where it stood, unless no display shows that place any more. */
export function placeOf(
  before: Remembered['window'],
  displays: readonly Rectangle[],
): Partial<Rectangle> & typeof usualSize {
  if (!before) return usualSize;
  const { x, y, width, height } = before;
  const isInReach = displays.some(
    (display) =>
      Math.min(x + width, display.x + display.width) - Math.max(x, display.x) >= graspPixels.width &&
      y >= display.y &&
      y <= display.y + display.height - graspPixels.height,
  );
  return isInReach ? { x, y, width, height } : { width, height };
}

/** Of whatever contents there ever are: they stay where they are, and open nothing. */
export function confineAllContents(): void {
  app.on('web-contents-created', (_, contents: WebContents) => {
    const stay = (event: { readonly url: string; preventDefault(): void }): void => {
      if (!isAppUrl(event.url)) event.preventDefault();
    };
    contents.on('will-navigate', stay).on('will-redirect', stay).on('will-frame-navigate', stay);
    contents.on('will-attach-webview', (event) => event.preventDefault());
    contents.setWindowOpenHandler(() => ({ action: 'deny' }));
  });
}
