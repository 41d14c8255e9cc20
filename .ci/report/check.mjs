// Opens pages of `eksup report` in Chromium, as people do: three widths, light and dark. A page fails by an error on the
// console, a request to anywhere, something wider than the screen, text too small to read, or what axe finds.
//
// usage: node check.mjs CHROMIUM FOLDER_FOR_SCREENSHOTS PAGE.html...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

// The packages are where npm was asked to put them, not beside this file.
const require = createRequire(join(process.cwd(), "package.json"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [chromium, folder, ...pages] = process.argv.slice(2);
const widths = [400, 800, 1280];
const schemes = ["light", "dark"];
const leastFontSize = 11;
const problems = [];
let checks = 0;

const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});
for (const file of pages) {
  const url = pathToFileURL(resolve(file)).href;
  for (const width of widths) {
    for (const scheme of schemes) {
      const name = `${basename(file, ".html")}-${width}-${scheme}`;
      const fail = (what) => problems.push(`${name}: ${what}`);
      const page = await browser.newPage();
      // Without scripts first: the page must say everything without them.
      await page.setJavaScriptEnabled(false);
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      page.on("console", (message) => fail(`console: ${message.text()}`));
      page.on("pageerror", (error) => fail(`error: ${error.message}`));
      page.on("request", (request) => {
        if (request.url() !== url) fail(`request to ${request.url()}`);
      });
      await page.goto(url, { waitUntil: "networkidle0" });
      await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
      // What measures the page is a script, but not the page's.
      await page.setJavaScriptEnabled(true);
      await page.reload({ waitUntil: "networkidle0" });
      const measured = await page.evaluate((least) => {
        const root = document.documentElement;
        const small = new Set();
        for (const element of document.body.querySelectorAll("*")) {
          const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
          if (own && parseFloat(getComputedStyle(element).fontSize) < least) {
            small.add(`${element.tagName} ${element.textContent.trim().slice(0, 30)}`);
          }
        }
        const wide = [...document.body.querySelectorAll("*")]
          .filter((e) => !e.closest(".track, .plot, .times") && e.getBoundingClientRect().right > root.clientWidth + 1)
          .map((e) => `${e.tagName}.${e.className}`);
        return {
          overflow: root.scrollWidth - root.clientWidth,
          background: getComputedStyle(document.body).backgroundColor,
          small: [...small].slice(0, 5),
          wide: [...new Set(wide)].slice(0, 5),
          headings: document.querySelectorAll("h1").length,
        };
      }, leastFontSize);
      if (measured.overflow > 0) fail(`${measured.overflow} px wider than the screen`);
      if (measured.wide.length) fail(`beyond the right edge: ${measured.wide.join(", ")}`);
      if (measured.small.length) fail(`text below ${leastFontSize} px: ${measured.small.join("; ")}`);
      if (measured.headings !== 1) fail(`${measured.headings} main headings`);
      const light = measured.background.match(/\d+/g).slice(0, 3).every((part) => Number(part) > 200);
      if (light !== (scheme === "light")) fail(`background ${measured.background} in ${scheme}`);
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
      for (const violation of found.violations) {
        const where = violation.nodes.slice(0, 3).map((n) => `${n.html.slice(0, 120)} (${n.failureSummary?.split("\n")[1]?.trim()})`);
        fail(`axe ${violation.id} (${violation.impact}, ${violation.nodes.length} places): ${where.join(" | ")}`);
      }
      checks += 1;
      await page.close();
    }
  }
  // On paper: one file that a printer takes.
  const page = await browser.newPage();
  await page.goto(url, { waitUntil: "networkidle0" });
  const pdf = await page.pdf({ path: join(folder, `${basename(file, ".html")}.pdf`), format: "A4" });
  if (pdf.length < 1000) problems.push(`${file}: nothing is printed`);
  checks += 1;
  await page.close();
}
await browser.close();
for (const problem of problems) console.log(problem);
console.log(`report pages: ${checks} checks, ${problems.length} problems`);
process.exit(problems.length || !checks ? 1 : 0);
