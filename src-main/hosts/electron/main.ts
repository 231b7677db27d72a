/** The desktop app: one instance, one window, one current sweep. */
import { basename, extname, join, resolve } from 'node:path';
import { app, type BrowserWindow, dialog, Menu, session, shell } from 'electron';
import { isActive, type RunVerb } from '../../contract/run-state.ts';
import { exportFormats } from '../../contract/session.ts';
import { writeWhole } from '../../sessions/storage.ts';
import { readAssets } from '../assets.ts';
import { createProfiler, fastmqaVersion } from '../compose.ts';
import { dataFolder, rendererFolder, sessionsFolder } from '../folders.ts';
import { createWindowHost } from '../window-host.ts';
import { setUpIpc } from './ipc.ts';
import { openMemory, withRecent } from './memory.ts';
import { type Keys, menuOf } from './menu.ts';
import { registerAppScheme, setUpSession } from './page.ts';
import { confineAllContents, openWindow, standOf } from './window.ts';
import { utilityWorker } from './worker.ts';

const sessionFiles = { name: 'FastMQA session', extensions: ['fmqa'] };
/** Long enough for a worker that has to be killed. */
const quitSeconds = 10;

/** Session files among the words of a command line. */
const filesIn = (words: readonly string[], folder: string): string[] =>
  words.filter((word) => word.endsWith('.fmqa') && !word.startsWith('-')).map((word) => resolve(folder, word));

const asked = filesIn(process.argv.slice(1), process.cwd());

app.enableSandbox();
app.setPath('userData', join(dataFolder(), 'desktop'));
registerAppScheme();
// What was asked of a second one is done by the first.
if (app.requestSingleInstanceLock({ files: asked })) startApp();
else app.quit();

function startApp(): void {
  const profiler = createProfiler({
    startWorker: utilityWorker,
    ...(process.env.FASTMQA_WORKER ? { workerScript: process.env.FASTMQA_WORKER } : {}),
  });
  const host = createWindowHost({ profiler, folder: sessionsFolder(), queue: process.env.FASTMQA_QUEUE || undefined });
  const memory = openMemory(join(dataFolder(), 'desktop.json'));
  let window: BrowserWindow | undefined;
  let end: 'none' | 'asking' | 'ending' | 'ended' = 'none';

  const tell = (message: string): void => {
    void dialog.showMessageBox(...of(window), { type: 'error', title: 'FastMQA', message });
  };
  const attempt = async (deed: () => Promise<unknown>): Promise<void> => {
    try {
      await deed();
    } catch (error) {
      tell(error instanceof Error ? error.message : String(error));
    }
  };

  const open = (file: string): Promise<void> =>
    attempt(async () => {
      await host.openPath(file);
      await remember(withRecent(memory.now.recentFiles, file));
      app.addRecentDocument(file);
    });
  const remember = async (recentFiles: string[]): Promise<void> => {
    await memory.change({ recentFiles });
    showMenu();
  };

  const chooseFile = async (): Promise<void> => {
    const { filePaths } = await dialog.showOpenDialog(...of(window), {
      properties: ['openFile'],
      filters: [sessionFiles],
    });
    if (filePaths[0] !== undefined) await open(filePaths[0]);
  };

  /** A copy of the current session, in the format that the name ends in. */
  const saveAs = async (): Promise<void> => {
    const { session: current } = host.hub.snapshot();
    if (!current) return;
    const { filePath } = await dialog.showSaveDialog(...of(window), {
      defaultPath: basename(current.file),
      filters: [sessionFiles, ...exportFormats.map((format) => ({ name: format.toUpperCase(), extensions: [format] }))],
    });
    if (!filePath) return;
    const ending = extname(filePath).slice(1);
    const format = exportFormats.find((known) => known === ending) ?? 'fmqa';
    const file = format === 'fmqa' && ending !== 'fmqa' ? `${filePath}.fmqa` : filePath;
    const { base64 } = await host.api.exportSession({ id: current.id, format });
    await writeWhole(file, Buffer.from(base64, 'base64'));
  };

  const press = ({ keyCode, modifiers = [] }: Keys): void => {
    window?.webContents.focus();
    for (const type of ['keyDown', 'char', 'keyUp'] as const)
      window?.webContents.sendInputEvent({ type, keyCode, modifiers });
  };

  let shown = '';
  const showMenu = (): void => {
    const { status, session: current } = host.hub.snapshot();
    const { recentFiles } = memory.now;
    const look = JSON.stringify([status, current?.id, recentFiles]);
    if (look === shown) return;
    shown = look;
    const state = {
      run: { status, ...(current ? { session: current } : {}) },
      recentFiles,
      platform: process.platform,
    };
    const template = menuOf(state, {
      chooseFile: () => void attempt(chooseFile),
      open: (file) => void open(file),
      forgetRecent: () => {
        app.clearRecentDocuments();
        void remember([]);
      },
      saveAs: () => void attempt(saveAs),
      steer: (verb: RunVerb) => void attempt(() => host.api[verb]({})),
      press,
      showSessionsFolder: () => void shell.openPath(sessionsFolder()),
      showAbout: () =>
        void dialog.showMessageBox(...of(window), {
          type: 'info',
          title: 'About FastMQA',
          message: `FastMQA ${fastmqaVersion}`,
          detail: `Electron ${process.versions.electron}, Chromium ${process.versions.chrome}`,
        }),
    });
    Menu.setApplicationMenu(Menu.buildFromTemplate(template));
  };

  /** Ends the app in order; asks first where a sweep would be cut off. */
  const quit = async (mayAsk: boolean): Promise<void> => {
    if (end === 'ending' || end === 'ended' || (end === 'asking' && mayAsk)) return;
    end = 'asking';
    if (mayAsk && isActive(host.hub.snapshot())) {
      const agrees = await agreesToQuit(window);
      if (end !== 'asking') return; // a signal did not wait for the answer
      if (!agrees) {
        end = 'none';
        return;
      }
    }
    end = 'ending';
    const patience = setTimeout(() => app.exit(1), quitSeconds * 1000);
    // Not when the window closes: what is written then is cut off by the end of the program.
    await memory.change(window ? { window: standOf(window) } : {});
    await host.close().catch(() => undefined);
    await profiler.close().catch(() => undefined);
    clearTimeout(patience);
    end = 'ended';
    app.quit();
  };
  app.on('before-quit', (event) => {
    if (end === 'ended') return;
    event.preventDefault();
    void quit(true);
  });
  app.on('window-all-closed', () => app.quit());
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void quit(false));

  const waiting = [...asked];
  const openSoon = (files: readonly string[]): void => {
    if (window) for (const file of files.slice(-1)) void open(file);
    else waiting.push(...files);
  };
  // macOS hands over files so, the first one before the app is ready.
  app.on('open-file', (event, file) => {
    event.preventDefault();
    openSoon([file]);
  });
  app.on('second-instance', (_, _words, _folder, data) => {
    if (window?.isMinimized()) window.restore();
    window?.focus();
    const { files } = (data ?? {}) as { files?: unknown };
    openSoon(Array.isArray(files) ? files.filter((file) => typeof file === 'string' && file.endsWith('.fmqa')) : []);
  });
  confineAllContents();

  const showWindow = async (): Promise<void> => {
    setUpSession(session.defaultSession, await readAssets(rendererFolder));
    setUpIpc(host.api, host.hub, () => window?.webContents);
    showMenu();
    host.hub.subscribe(showMenu);
    window = openWindow(memory);
    window.on('close', (event) => {
      if (end === 'ended') return;
      event.preventDefault();
      app.quit();
    });
    window.on('closed', () => {
      window = undefined;
    });
    for (const file of waiting.splice(0).slice(-1)) await open(file);
  };
  // Not awaited here: Electron is not ready before this file has run to its end.
  void app
    .whenReady()
    .then(showWindow)
    .catch((error: Error) => {
      process.stderr.write(`${error.message}\n`);
      app.exit(1);
    });
}

/** For dialogs that belong to the window, where there is one. */
const of = (window: BrowserWindow | undefined): [BrowserWindow] =>
  (window ? [window] : []) as unknown as [BrowserWindow];

async function agreesToQuit(window: BrowserWindow | undefined): Promise<boolean> {
  const { response } = await dialog.showMessageBox(...of(window), {
    type: 'question',
    title: 'FastMQA',
    message: 'A sweep is running. Quit and end it?',
    detail: 'Points measured so far are saved; the session can be continued later.',
    buttons: ['Keep measuring', 'Quit'],
    defaultId: 0,
    cancelId: 0,
  });
  return response === 1;
}
